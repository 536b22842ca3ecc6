// The shapes in which a page can ask for events: by type, all as messages, the payload alone; and several at a time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bodies, openTab, untilOpen, untilSeen, useBrowser } from './browser.js';
import { Server } from './server.js';
import { Site, emptyPage, readerPage } from './site.js';

useBrowser();

/** A reader page, open on a path of the API. */
async function openReader(t, server, path, types) {
  const page = await openTab(t);
  await page.goto((await Site.start(t)).put(readerPage(`${server.api}/${path}`, types)));
  await untilOpen(page);
  return page;
}

test('an event with a type goes to the listeners of that type alone', async (t) => {
  const server = await Server.start(t);
  const page = await openReader(t, server, 'audits', ['add', 'user.login']);
  await server.append({ type: 'add', data: 1 });
  await server.append({ type: 'nobody listens', data: 2 });
  await server.append({ data: 3 });
  await server.append({ type: 'user.login', data: 4 });
  const seen = await untilSeen(page, 3);
  const given = seen.map(({ type, lastEventId }) => [type, lastEventId]);
  assert.deepEqual(given, [['add', '1'], ['message', '3'], ['user.login', '4']]);
  assert.deepEqual(bodies(seen), server.events().filter(({ seq }) => seq !== 2));
});

test('event=message sends every type to onmessage', async (t) => {
  const server = await Server.start(t);
  const page = await openReader(t, server, 'audits?event=message', ['add']);
  for (const type of ['add', 'message', 'user.login']) await server.append({ type });
  const seen = await untilSeen(page, 3);
  assert.deepEqual(seen.map(({ type }) => type), ['message', 'message', 'message']);
  assert.deepEqual(bodies(seen), server.events());
});

test('format=data gives the payload alone, text line by line', async (t) => {
  const server = await Server.start(t);
  const page = await openReader(t, server, 'notes?format=data', ['add']);
  const payloads = [
    ['one\ntwo\n\nfour', 'one\ntwo\n\nfour'],
    // EventSource knows one line end.
    ['a\r\nb\rc', 'a\nb\nc'],
    ['ends with a line end\n', 'ends with a line end\n'],
    [' data: id: 7', ' data: id: 7'],
    ['\u2028 \u0000 \ud83d\ude00 \u00e9', '\u2028 \u0000 \ud83d\ude00 \u00e9'],
    ['', '""'],
    ['\n', '"\\n"'],
    [{ big: [1, 'zwei', null] }, '{"big":[1,"zwei",null]}'],
    [null, 'null'],
    [undefined, 'null'],
  ];
  for (const [data] of payloads) await server.append({ type: 'add', data }, 'notes');
  const seen = await untilSeen(page, payloads.length);
  assert.deepEqual(seen.map(({ data }) => data), payloads.map(([, expected]) => expected));
  assert.ok(seen.every(({ type, lastEventId }, index) => type === 'add' && lastEventId === String(index + 1)));
});

test('the whole log can be narrowed to streams and types', async (t) => {
  const server = await Server.start(t);
  const page = await openReader(t, server, 'events?stream=orders.*&stream=audits&type=user.*&event=message');
  const events = [
    ['audits', 'user.login'],
    ['audits', 'add'],
    ['orders.eu', 'user.logout'],
    ['orders', 'user.login'],
    ['other', 'user.login'],
    ['audits', 'user.login'],
  ];
  for (const [stream, type] of events) await server.append({ type }, stream);
  const seen = bodies(await untilSeen(page, 3));
  assert.deepEqual(seen.map(({ seq, stream }) => [seq, stream]), [[1, 'audits'], [3, 'orders.eu'], [6, 'audits']]);
});

test('a page begins where it asks to: after, last and since', async (t) => {
  const server = await Server.start(t);
  for (let number = 1; number <= 6; number += 1) await server.append({ id: String(number) });
  const stored = server.events();
  const starts = [
    ['after=0', 1],
    ['after=4', 5],
    ['last=2', 5],
    [`since=${stored[2].created_at}`, 3],
    ['since=1h', 1],
  ];
  for (const [start, first] of starts) {
    const page = await openReader(t, server, `audits?${start}`);
    const count = 6 - first + 1;
    assert.deepEqual(bodies(await untilSeen(page, count)), stored.slice(first - 1), start);
  }
});

test('six EventSources of one page, as many as HTTP/1.1 allows, all get every event', async (t) => {
  const server = await Server.start(t);
  const page = await openTab(t);
  await page.goto((await Site.start(t)).put(emptyPage));
  await page.evaluate((url) => {
    window.readers = Array.from({ length: 6 }, () => {
      const reader = { source: new EventSource(url), seen: [] };
      reader.source.onmessage = (e) => reader.seen.push(e.data);
      return reader;
    });
  }, `${server.api}/audits`);
  const isOpenOnAll = () => readers.every(({ source }) => source.readyState === EventSource.OPEN);
  await page.waitForFunction(isOpenOnAll);
  for (let number = 1; number <= 20; number += 1) await server.append({ id: String(number) });
  await page.waitForFunction(() => readers.every(({ seen }) => seen.length >= 20));
  await server.kill();
  server.sql(`insert into events (stream, id) values ('audits', 'while down')`);
  await server.start();
  await page.waitForFunction(() => readers.every(({ seen }) => seen.length >= 21));
  const stored = server.events();
  for (const seen of await page.evaluate(() => readers.map(({ seen }) => seen))) {
    assert.deepEqual(seen.map((data) => JSON.parse(data)), stored);
  }
});

test('an event as large as allowed and a long history arrive whole', async (t) => {
  const server = await Server.start(t);
  const large = 'é\u2028"'.repeat(37_000);
  await server.append({ id: 'large', data: large });
  for (let batch = 0; batch < 3; batch += 1) {
    const event = (_, index) => ({ id: `${batch}-${index}`, data: 'y'.repeat(100) });
    await server.append(Array.from({ length: 1000 }, event));
  }
  const page = await openReader(t, server, 'audits?after=0');
  const seen = bodies(await untilSeen(page, 3001));
  assert.equal(seen[0].data, large);
  assert.deepEqual(seen, server.events());
});
