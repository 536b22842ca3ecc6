// Whose pages may use the server: those of this machine, those listed, and no others.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { bodies, openTab, until, untilOpen, untilSeen, useBrowser, watchStatuses } from './browser.js';
import { Server } from './server.js';
import { Site, emptyPage, readerPage } from './site.js';

useBrowser();

/** Tries to append from within the page, as scripts do; says what the script gets to know. */
const post = (page, url, options) =>
  page.evaluate(
    async ([url, options]) => {
      try {
        const response = await fetch(url, { method: 'POST', body: '{"id":"1"}', ...options });
        return { type: response.type, status: response.status, answer: await response.text() };
      } catch (error) {
        return { error: error.name };
      }
    },
    [url, options],
  );

/** Whether the page's EventSource has given up for good. */
const untilClosed = (page) => page.waitForFunction(() => source.readyState === EventSource.CLOSED);

const json = { headers: { 'content-type': 'application/json' } };

test('a page of a foreign origin can neither read nor append', async (t) => {
  const server = await Server.start(t);
  await server.append({ id: 'secret' });
  const page = await openTab(t);
  const statuses = await watchStatuses(page, server.api);
  await page.goto((await Site.start(t)).put(readerPage(`${server.api}/audits?after=0`), 'evil.test'));
  await untilClosed(page);
  assert.deepEqual(await page.evaluate(() => seen), []);

  const url = `${server.api}/audits`;
  // Simple requests go out without a preflight: only the server can refuse them.
  assert.deepEqual(await post(page, url, {}), { error: 'TypeError' });
  assert.deepEqual(await post(page, url, { mode: 'no-cors' }), { type: 'opaque', status: 0, answer: '' });
  assert.deepEqual(await post(page, url, json), { error: 'TypeError' });
  // The stream, the two, and the third one's preflight, which is answered without leave.
  await until(() => statuses().length >= 4);
  assert.deepEqual(statuses(), [403, 403, 403, 200]);
  // A form needs no script, and shows its answer.
  await page.evaluate((url) => {
    document.body.innerHTML = `<form method="post" action="${url}"><input name="data" value="forged"></form>`;
  }, url);
  const [answer] = await Promise.all([
    page.waitForResponse((response) => response.url() === url),
    page.evaluate(() => document.forms[0].submit()),
  ]);
  assert.equal(answer.status(), 403);
  assert.deepEqual(server.events().map(({ id }) => id), ['secret']);
});

test('a foreign page cannot load history as a script or a picture', async (t) => {
  const server = await Server.start(t);
  await server.append({ id: 'secret' });
  const page = await openTab(t);
  await page.goto((await Site.start(t)).put(emptyPage, 'evil.test'));
  const loaded = await page.evaluate(async (urls) => {
    const load = (tag, url) =>
      new Promise((resolve) => {
        const element = document.createElement(tag);
        element.onload = () => resolve('loaded');
        element.onerror = () => resolve('refused');
        element.src = url;
        document.head.append(element);
      });
    const results = [];
    for (const url of urls) results.push(await load('script', url), await load('img', url));
    return results;
  }, [`${server.api}/events/1`, `${server.page}`]);
  assert.deepEqual(loaded, ['refused', 'refused', 'refused', 'refused']);
});

test('a foreign name that leads to this machine is refused', async (t) => {
  const server = await Server.start(t);
  await server.append({ id: 'secret' });
  const page = await openTab(t);
  for (const path of ['', 'api/v1/events/1']) {
    const answer = await page.goto(`http://evil.test:${server.port}/${path}`);
    assert.equal(answer.status(), 421);
    assert.equal((await answer.json()).code, 'host_refused');
  }
});

test('a listed origin reads and appends, and no other comes in with it', async (t) => {
  const site = await Site.start(t);
  const server = await Server.start(t, { EVERTAIL_ALLOWED_ORIGINS: site.origin('app.test') });
  const url = `${server.api}/audits`;
  const app = await openTab(t);
  await app.goto(site.put(readerPage(url), 'app.test'));
  await untilOpen(app);
  const { answer, ...rest } = await post(app, url, {
    headers: { 'content-type': 'application/json', 'idempotency-key': 'once' },
    body: '{"data":{"from":"app"}}',
  });
  assert.deepEqual(rest, { type: 'cors', status: 201 });
  assert.equal(JSON.parse(answer).seq, 1);
  assert.equal((await post(app, url, {})).status, 201);
  assert.deepEqual(bodies(await untilSeen(app, 2)), server.events());

  const other = await openTab(t);
  await other.goto(site.put(readerPage(url), 'evil.test'));
  await untilClosed(other);
  assert.deepEqual(await post(other, url, json), { error: 'TypeError' });
  assert.equal(server.events().length, 2);
});

test('a refused append tells a page of this machine why', async (t) => {
  const server = await Server.start(t);
  const page = await openTab(t);
  await page.goto((await Site.start(t)).put(emptyPage));
  const { status, answer } = await post(page, `${server.api}/audits`, { ...json, body: '{"id":"1","actor":"alice"}' });
  assert.equal(status, 422);
  assert.match(answer, /actor/);
});

test('a page opened from disk works only when null is listed', async (t) => {
  const closed = await Server.start(t);
  const open = await Server.start(t, { EVERTAIL_ALLOWED_ORIGINS: 'null' });
  const openFile = async (server) => {
    const file = join(server.folder, 'page.html');
    writeFileSync(file, readerPage(`${server.api}/audits`));
    const page = await openTab(t);
    await page.goto(pathToFileURL(file).href);
    return page;
  };

  const refused = await openFile(closed);
  await untilClosed(refused);
  assert.deepEqual(await post(refused, `${closed.api}/audits`, {}), { error: 'TypeError' });
  assert.deepEqual(closed.events(), []);

  const allowed = await openFile(open);
  await untilOpen(allowed);
  assert.equal((await post(allowed, `${open.api}/audits`, json)).status, 201);
  assert.deepEqual(bodies(await untilSeen(allowed, 1)), open.events());
});
