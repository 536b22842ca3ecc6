// `/`, the live page that the server brings along.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openTab, useBrowser, watchComplaints } from './browser.js';
import { Server } from './server.js';

useBrowser();

async function openConsole(t, server) {
  const page = await openTab(t);
  const complaints = await watchComplaints(page);
  await page.goto(server.page);
  await page.getByText('live', { exact: true }).waitFor();
  return { page, complaints };
}

/** The table's rows, newest first, once there are so many. */
async function rows(page, count) {
  await page.waitForFunction((count) => document.querySelectorAll('tbody tr').length >= count, count);
  return page.evaluate(() =>
    [...document.querySelectorAll('tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent)),
  );
}

test('the live page shows what is stored and what is appended, newest first', async (t) => {
  const server = await Server.start(t);
  await server.append({ id: 'stored', type: 'user.login', data: { actor: 'alice' } });
  const { page, complaints } = await openConsole(t, server);
  await server.append({ id: 'live', data: 'text' }, 'orders');
  await server.append({});
  const [first, second, third] = server.events();
  assert.deepEqual(await rows(page, 3), [
    ['3', third.created_at, 'audits', 'message', '', ''],
    ['2', second.created_at, 'orders', 'message', 'live', '"text"'],
    ['1', first.created_at, 'audits', 'user.login', 'stored', '{"actor":"alice"}'],
  ]);
  assert.deepEqual(complaints, []);
});

test('hostile content is shown as text and does nothing', async (t) => {
  const server = await Server.start(t);
  const { page, complaints } = await openConsole(t, server);
  const hostile = [
    '<script>window.pwned = 1</script>',
    '</td></tr></table><h1>out</h1>',
    '<img src=x onerror="window.pwned = 1">',
    '"><svg onload=window.pwned=1>',
    "';window.pwned=1;//",
    'line\u2028separator\u2029',
    '\u202etxet desrever',
    ',"data":{"forged":true}',
    'javascript:window.pwned=1',
    '&lt;b&gt; &#60;b&#62;',
  ];
  for (const [index, text] of hostile.entries()) {
    await server.append({ id: `${index} ${text}`, type: text, source: text, subject: text, data: { [text]: text } });
  }
  const shown = (await rows(page, hostile.length)).reverse();
  for (const [index, text] of hostile.entries()) {
    const data = JSON.stringify({ [text]: text });
    assert.deepEqual(shown[index].slice(2), ['audits', text, `${index} ${text}`, data]);
  }
  assert.equal(await page.evaluate(() => window.pwned), undefined);
  assert.equal(await page.locator('h1').count(), 1);
  assert.equal(await page.locator('tbody :is(img, svg, script, h1, b)').count(), 0);
  assert.deepEqual(complaints, []);
});

test('the live page resumes by itself after a restart, and says so meanwhile', async (t) => {
  const server = await Server.start(t);
  await server.append({ id: '1' });
  const { page } = await openConsole(t, server);
  await rows(page, 1);
  await server.kill();
  await page.getByText('reconnecting', { exact: true }).waitFor();
  server.sql(`insert into events (stream, id) values ('audits', '2')`);
  await server.start();
  assert.deepEqual((await rows(page, 2)).map(([seq]) => seq), ['2', '1']);
  await page.getByText('live', { exact: true }).waitFor();
});

test('the live page tells of events that are gone and of a log that was reset', async (t) => {
  const server = await Server.start(t);
  for (const id of ['1', '2', '3']) await server.append({ id });
  const { page } = await openConsole(t, server);
  await rows(page, 3);
  await server.kill();
  server.sql(`
    insert into events (stream, id) values ('audits', '4'), ('audits', '5');
    update meta set trimmed_seq = 4, trimmed_created_at = (select created_at from log where seq = 4);
    delete from log where seq <= 4`);
  await server.start();
  const shown = await rows(page, 5);
  assert.deepEqual(shown.map(([seq]) => seq), ['5', '4–4', '3', '2', '1']);
  assert.match(shown[1].join(' '), /trimmed/);
});

test('the live page holds the newest 500 and begins with the newest 100', async (t) => {
  const server = await Server.start(t);
  const batch = (count) => Array.from({ length: count }, () => ({ data: 1 }));
  await server.append(batch(150));
  const { page } = await openConsole(t, server);
  assert.equal((await rows(page, 100)).at(-1)[0], '51');
  await server.append(batch(450));
  await page.waitForFunction(() => document.querySelector('tbody tr').cells[0].textContent === '600');
  const shown = await rows(page, 500);
  assert.deepEqual([shown.length, shown.at(-1)[0]], [500, '101']);
});

test('the longest names leave room for the data', async (t) => {
  const server = await Server.start(t);
  const { page } = await openConsole(t, server);
  await page.setViewportSize({ width: 1280, height: 720 });
  await server.append({ type: 't'.repeat(128), id: 'i'.repeat(256), data: 'd'.repeat(2000) }, 's'.repeat(128));
  await rows(page, 1);
  const [tableWidth, dataWidth] = await page.evaluate(() =>
    [document.documentElement, document.querySelector('tbody td:last-child')].map((element) => element.scrollWidth),
  );
  assert.ok(tableWidth <= 1280, `the page is ${tableWidth} pixels wide, the window 1280`);
  assert.ok(dataWidth >= 150, `the data has ${dataWidth} pixels`);
});
