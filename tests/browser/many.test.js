// Many EventSources in one browser: as many as one likes over https, where they share a connection; six over http.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openTab, until, useBrowser, watchConnections } from './browser.js';
import { Server } from './server.js';

useBrowser();

/** Opens so many EventSources of the server in a tab, on a page of its own origin. */
async function openMany(page, server, count) {
  await page.goto(`${server.page}healthz`);
  await page.evaluate(
    ({ url, count }) => {
      window.sources = Array.from({ length: count }, () => {
        const source = new EventSource(url);
        source.seen = [];
        source.onmessage = ({ lastEventId }) => source.seen.push(Number(lastEventId));
        return source;
      });
    },
    { url: `${server.api}/audits`, count },
  );
}

const untilOpen = (page, count) =>
  page.waitForFunction(
    (count) => sources.filter(({ readyState }) => readyState === EventSource.OPEN).length === count,
    count,
  );

const untilAllSaw = (page, count, readers) =>
  page.waitForFunction(
    ({ count, readers }) => sources.filter(({ seen }) => seen.length >= count).length >= readers,
    { count, readers },
  );

test('fifty EventSources over https share a connection, and each gets every event', async (t) => {
  const server = await Server.startSecure(t);
  const page = await openTab(t);
  const connections = await watchConnections(page);
  await openMany(page, server, 50);
  await untilOpen(page, 50);
  const expected = [];
  for (let number = 1; number <= 50; number += 1) {
    expected.push((await server.append({ id: String(number) })).seq);
  }
  await untilAllSaw(page, 50, 50);
  const seen = await page.evaluate(() => sources.map(({ seen }) => seen));
  assert.deepEqual(seen, Array(50).fill(expected));
  await until(() => connections.length >= 50);
  assert.equal(connections.length, 50);
  assert.deepEqual(new Set(connections.map(({ protocol }) => protocol)), new Set(['h2']));
  assert.equal(new Set(connections.map(({ id }) => id)).size, 1);

  // All come back by themselves when the server does, with nothing lost.
  await server.kill();
  await server.start();
  expected.push((await server.append({ id: '51' })).seq);
  await untilAllSaw(page, 51, 50);
  assert.deepEqual(await page.evaluate(() => sources.map(({ seen }) => seen)), Array(50).fill(expected));
});

test('over http a seventh EventSource waits until another is closed', async (t) => {
  const server = await Server.start(t);
  const page = await openTab(t);
  await openMany(page, server, 7);
  await untilOpen(page, 6);
  await server.append({ id: '1' });
  await untilAllSaw(page, 1, 6);
  const states = await page.evaluate(() => sources.map(({ readyState }) => readyState));
  assert.equal(states.filter((state) => state === 0).length, 1, 'one is still connecting');
  await page.evaluate(() => sources.find(({ readyState }) => readyState === EventSource.OPEN).close());
  await untilOpen(page, 6);
});
