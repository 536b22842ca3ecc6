// A native EventSource against a server that dies: the page has no code to resume, and yet misses nothing.

import assert from 'node:assert/strict';
import { renameSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { bodies, openTab, until, untilOpen, untilSeen, useBrowser, watchFrames } from './browser.js';
import { Server } from './server.js';
import { Site, readerPage, seedPage } from './site.js';

useBrowser();

const seqs = (seen) => bodies(seen).map((event) => event.seq);
const upTo = (last, first = 1) => Array.from({ length: last - first + 1 }, (_, index) => first + index);
const isCursor = (frame) => frame.type === 'evertail.cursor';

test('the page of the seed shows ten events in order, with id and created_at', async (t) => {
  const server = await Server.start(t);
  const page = await openTab(t);
  const frames = await watchFrames(page);
  await page.goto((await Site.start(t)).put(seedPage(server.api)));
  await untilOpen(page);
  const expected = [];
  for (const number of upTo(10)) {
    const { id, created_at } = await server.append({ id: String(number) });
    expected.push(`${id} ${created_at}`);
  }
  await page.waitForFunction(() => document.querySelectorAll('li').length >= 10);
  assert.deepEqual(await page.locator('li').allTextContents(), expected);
  // What the server says for itself was sent, and stayed out of onmessage.
  await until(() => frames.length >= 11);
  assert.deepEqual(frames.map(({ type }) => type), ['evertail.cursor', ...Array(10).fill('message')]);
});

test('a page keeps every event once and in order over kill -9 in the middle of posting', async (t) => {
  const server = await Server.start(t);
  const page = await openTab(t);
  await page.goto((await Site.start(t)).put(readerPage(`${server.api}/audits?after=0`)));
  await untilOpen(page);

  let isPosting = true;
  let number = 0;
  const acks = new Map();
  const post = async () => {
    while (isPosting) {
      const id = String((number += 1));
      // Whether a request that failed was stored is unknown; the id makes it safe to ask again.
      while (isPosting && !acks.has(id)) {
        const receipt = await server.append({ id, data: { text: 'x'.repeat(200) } }).catch(() => null);
        if (receipt) acks.set(id, receipt.seq);
        else await server.restarting;
      }
    }
  };
  const more = async () => untilSeen(page, (await page.evaluate(() => seen.length)) + 50);
  const producers = [post(), post(), post(), post()];
  try {
    for (let kills = 1; kills <= 5; kills += 1) {
      await more();
      server.restarting = server.kill().then(() => server.start());
      await server.restarting;
    }
    await more();
  } finally {
    isPosting = false;
    await Promise.all(producers);
  }

  const stored = server.events();
  const seen = bodies(await untilSeen(page, stored.length));
  assert.deepEqual(seen, stored);
  assert.deepEqual(seen.map(({ seq }) => seq), upTo(stored.length));
  const storedSeq = new Map(stored.map(({ id, seq }) => [id, seq]));
  for (const [id, seq] of acks) assert.equal(storedSeq.get(id), seq, `${id} was acknowledged as seq ${seq}`);
});

test('events that another process inserts arrive, whether the server runs or not', async (t) => {
  const server = await Server.start(t);
  const page = await openTab(t);
  await page.goto((await Site.start(t)).put(readerPage(`${server.api}/audits`)));
  await untilOpen(page);
  const insert = (first, last) =>
    server.sql(`insert into events (stream, id, data)
      with recursive n(n) as (select ${first} union all select n + 1 from n where n < ${last})
      select 'audits', cast(n as text), json_object('n', n) from n`);
  insert(1, 3);
  await untilSeen(page, 3);
  await server.kill();
  insert(4, 3000);
  await server.start();
  await untilSeen(page, 3000);
  await server.append({ id: '3001', data: { n: 3001 } });
  assert.deepEqual(bodies(await untilSeen(page, 3001)), server.events());
});

test('a server that dies before the first event costs the page nothing', async (t) => {
  const server = await Server.start(t);
  await server.append({ id: 'before' });
  const page = await openTab(t);
  const frames = await watchFrames(page);
  await page.goto((await Site.start(t)).put(seedPage(server.api)));
  const cursor = await until(() => frames.find(isCursor));
  assert.equal(cursor.id, '1', 'the first frame hands out where the stream begins');
  await server.kill();
  server.sql(`insert into events (stream, id) values ('audits', 'while down')`);
  await server.start();
  await page.waitForFunction(() => document.querySelectorAll('li').length >= 1);
  const [, event] = server.events();
  assert.deepEqual(await page.locator('li').allTextContents(), [`while down ${event.created_at}`]);
});

test('a page that saw only events of other streams resumes behind them', async (t) => {
  const server = await Server.start(t, { EVERTAIL_KEEP_ALIVE_SECONDS: '1' });
  const page = await openTab(t);
  const frames = await watchFrames(page);
  await page.goto((await Site.start(t)).put(seedPage(server.api)));
  await untilOpen(page);
  for (let number = 1; number <= 5; number += 1) await server.append({ id: String(number) }, 'other');
  await until(() => frames.find((frame) => isCursor(frame) && frame.id === '5'));
  await server.kill();
  const known = frames.length;
  await server.start();
  assert.equal((await until(() => frames.slice(known).find(isCursor))).id, '5');
  await server.append({ id: 'mine' });
  await page.waitForFunction(() => document.querySelectorAll('li').length >= 1);
  assert.match((await page.locator('li').allTextContents()).join('\n'), /^mine \S+$/);
});

test('a graceful stop is told, ends with success, and the page comes back by itself', async (t) => {
  const server = await Server.start(t);
  const page = await openTab(t);
  const frames = await watchFrames(page);
  await page.goto((await Site.start(t)).put(readerPage(`${server.api}/audits`)));
  await untilOpen(page);
  for (const number of upTo(3)) await server.append({ id: String(number) });
  await untilSeen(page, 3);
  for (let stops = 1; stops <= 2; stops += 1) {
    const known = frames.length;
    assert.equal(await server.stop(), 0);
    const notice = await until(() => frames.slice(known).find(({ type }) => type === 'evertail.notice'));
    assert.deepEqual(JSON.parse(notice.data), { reason: 'drain' });
    server.sql(`insert into events (stream, id) values ('audits', 'stop ${stops}')`);
    await server.start();
    await untilSeen(page, 3 + stops);
  }
  await server.append({ id: 'last' });
  const seen = await untilSeen(page, 6);
  assert.deepEqual(bodies(seen), server.events());
  assert.ok(seen.every(({ type }) => type === 'message'));
});

test('a page below what is retained is told the gap, then gets the rest', async (t) => {
  const server = await Server.start(t);
  const page = await openTab(t);
  await page.goto((await Site.start(t)).put(readerPage(`${server.api}/audits`, ['evertail.gap'])));
  await untilOpen(page);
  for (const number of upTo(3)) await server.append({ id: String(number) });
  await untilSeen(page, 3);
  await server.kill();
  server.sql(`
    insert into events (stream, id)
    values ('audits', '4'), ('audits', '5'), ('audits', '6'), ('audits', '7'), ('audits', '8');
    update meta set trimmed_seq = 6, trimmed_created_at = (select created_at from log where seq = 6);
    delete from log where seq <= 6;
    update streams set first_seq = 7, events = 2, bytes = 0 where name = 'audits'`);
  await server.start();
  await server.append({ id: '9' });
  const seen = await untilSeen(page, 7);
  const three = Array(3).fill('message');
  assert.deepEqual(seen.map(({ type }) => type), [...three, 'evertail.gap', ...three]);
  assert.deepEqual(JSON.parse(seen[3].data), { from: 4, to: 6, reason: 'trimmed' });
  assert.deepEqual(seqs(seen.filter(({ type }) => type === 'message')), [1, 2, 3, 7, 8, 9]);

  // Everything trimmed: the gap again, and its end is the cursor, so that it is told once.
  await server.kill();
  server.sql(`
    insert into events (stream, id) values ('audits', '10'), ('audits', '11');
    update meta set trimmed_seq = 11, trimmed_created_at = (select created_at from log where seq = 11);
    delete from log;
    update streams set first_seq = 12, events = 0, bytes = 0 where name = 'audits'`);
  await server.start();
  assert.deepEqual(JSON.parse((await untilSeen(page, 8))[7].data), { from: 10, to: 11, reason: 'trimmed' });
  await server.kill();
  await server.start();
  await server.append({ id: '12' });
  assert.deepEqual(seqs((await untilSeen(page, 9)).slice(8)), [12]);
});

test('a page ahead of a restored older copy is told, then follows live', async (t) => {
  const server = await Server.start(t);
  const page = await openTab(t);
  await page.goto((await Site.start(t)).put(readerPage(`${server.api}/audits`, ['evertail.reset'])));
  await untilOpen(page);
  for (const number of upTo(4)) await server.append({ id: String(number) });
  server.sql(`vacuum into '${server.folder}/older.db'`);
  for (const number of upTo(10, 5)) await server.append({ id: String(number) });
  await untilSeen(page, 10);
  await server.stop();
  for (const suffix of ['-wal', '-shm']) rmSync(server.file + suffix, { force: true });
  renameSync(`${server.folder}/older.db`, server.file);
  await server.start();
  const reset = (await untilSeen(page, 11))[10];
  assert.equal(reset.type, 'evertail.reset');
  assert.deepEqual(JSON.parse(reset.data), { cursor: 10, last_seq: 4, reason: 'ahead' });
  await server.append({ id: 'new' });
  const [, event] = bodies((await untilSeen(page, 12)).slice(10));
  assert.deepEqual([event.seq, event.id], [5, 'new']);
});

test('a page of another log is told, then gets this one from the beginning', async (t) => {
  const server = await Server.start(t);
  const [{ log_id }] = server.sql('select log_id from meta');
  const page = await openTab(t);
  await page.goto((await Site.start(t)).put(readerPage(`${server.api}/audits?log=${log_id}`, ['evertail.reset'])));
  await untilOpen(page);
  for (const number of upTo(2)) await server.append({ id: String(number) });
  await untilSeen(page, 2);
  await server.stop();
  for (const suffix of ['', '-wal', '-shm']) rmSync(server.file + suffix, { force: true });
  await server.start();
  const reset = (await untilSeen(page, 3))[2];
  assert.equal(reset.type, 'evertail.reset');
  assert.deepEqual(JSON.parse(reset.data), { cursor: 2, last_seq: 0, reason: 'replaced' });
  await server.append({ id: 'new' });
  assert.deepEqual(seqs((await untilSeen(page, 4)).slice(3)), [1]);
});
