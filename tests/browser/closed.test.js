// The end of a stream: a native EventSource gets everything, is told, asks once more, and stays away.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bodies, openTab, until, untilOpen, untilSeen, useBrowser, watchStatuses } from './browser.js';
import { Server } from './server.js';
import { Site, readerPage } from './site.js';

useBrowser();

const isClosed = (page) => page.waitForFunction(() => source.readyState === EventSource.CLOSED);

async function close(server, stream, reason) {
  const body = JSON.stringify({ reason });
  const answer = await fetch(`http://127.0.0.1:${server.port}/api/v1/${stream}/close`, { method: 'POST', body });
  assert.equal(answer.status, 201);
  return answer.json();
}

test('a page whose stream is closed under it is told, and does not come back again and again', async (t) => {
  const server = await Server.start(t);
  const page = await openTab(t);
  const statuses = await watchStatuses(page, server.api);
  await page.goto((await Site.start(t)).put(readerPage(`${server.api}/answer?after=0`, ['evertail.closed'])));
  await untilOpen(page);
  for (const number of [1, 2, 3]) await server.append({ id: String(number) }, 'answer');
  const { seq } = await close(server, 'answer', 'stop');
  const seen = bodies(await untilSeen(page, 4));
  assert.deepEqual(seen.map(({ seq }) => seq), [1, 2, 3, 4]);
  assert.deepEqual([seen[3].seq, seen[3].type, seen[3].data.reason], [seq, 'evertail.closed', 'stop']);
  await isClosed(page);
  assert.deepEqual(statuses(), [200, 204]);

  // An EventSource that is CLOSED asks no more: the page's own next request is the next there is.
  await page.evaluate((url) => fetch(url).then((answer) => answer.text()), `${server.api}/streams/answer`);
  await until(() => statuses().length >= 3);
  assert.deepEqual(statuses(), [200, 204, 200]);
});

test('a page that comes later gets the whole stream and its end', async (t) => {
  const server = await Server.start(t);
  for (const number of [1, 2]) await server.append({ id: String(number) }, 'answer');
  await close(server, 'answer', 'stop');
  await server.append({ id: '1' }, 'other');
  const page = await openTab(t);
  const statuses = await watchStatuses(page, server.api);
  const url = `${server.api}/answer?after=0&format=data&event=message`;
  await page.goto((await Site.start(t)).put(readerPage(url, ['evertail.closed'])));
  const seen = await untilSeen(page, 3);
  assert.deepEqual(seen.map(({ type }) => type), ['message', 'message', 'evertail.closed']);
  await isClosed(page);
  assert.deepEqual(statuses(), [200, 204]);
});
