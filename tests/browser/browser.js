// Debian's Chromium, and what a test watches in it.

import { after, before } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { chromium } from 'playwright-core';

const WAIT_MILLISECONDS = 20_000;

let browser;

/** One Chromium for the tests of a file. */
export function useBrowser() {
  before(async () => {
    browser = await chromium.launch({
      executablePath: process.env.EVERTAIL_CHROMIUM || '/usr/bin/chromium',
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        // Names of other people's pages, without a name server.
        '--host-resolver-rules=MAP *.test 127.0.0.1',
      ],
    });
  });
  after(() => browser?.close());
}

/** A tab with nothing in common with any other, closed with the test `t`. */
export async function openTab(t) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MILLISECONDS);
  return page;
}

/** Waits until the page's EventSource is open. */
export const untilOpen = (page) => page.waitForFunction(() => source.readyState === EventSource.OPEN);

/** Waits until the reader page has seen so many events, and returns all it has seen. */
export async function untilSeen(page, count) {
  await page.waitForFunction((count) => seen.length >= count, count);
  return page.evaluate(() => seen);
}

/** The events of a reader page, read as JSON. */
export const bodies = (seen) => seen.map(({ data }) => JSON.parse(data));

/** Waits until `look` finds something, and returns that. */
export async function until(look) {
  const end = Date.now() + WAIT_MILLISECONDS;
  for (;;) {
    const found = look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not seen in ${WAIT_MILLISECONDS} ms: ${look}`);
    await setTimeout(10);
  }
}

/** The frames that the tab's EventSources receive, growing, also those that no page listens to. */
export async function watchFrames(page) {
  const session = await page.context().newCDPSession(page);
  await session.send('Network.enable');
  const frames = [];
  session.on('Network.eventSourceMessageReceived', ({ eventName, eventId, data }) => {
    frames.push({ type: eventName, id: eventId, data });
  });
  return frames;
}

/**
 * The statuses of the answers from addresses below `prefix`, also of those that the browser keeps from the page:
 * `statuses()` has those of now, in the order of the requests.
 */
export async function watchStatuses(page, prefix) {
  const session = await page.context().newCDPSession(page);
  await session.send('Network.enable');
  const watched = new Set();
  const answered = new Map();
  // Which of the two comes first is not certain.
  session.on('Network.requestWillBeSent', ({ requestId, request }) => {
    if (request.url.startsWith(prefix)) watched.add(requestId);
  });
  session.on('Network.responseReceivedExtraInfo', ({ requestId, statusCode }) => answered.set(requestId, statusCode));
  return () => [...watched].map((requestId) => answered.get(requestId)).filter((status) => status);
}

/** The protocol and the connection of each event stream of a tab, growing. */
export async function watchConnections(page) {
  const session = await page.context().newCDPSession(page);
  await session.send('Network.enable');
  const connections = [];
  session.on('Network.responseReceived', ({ type, response }) => {
    if (type === 'EventSource') connections.push({ protocol: response.protocol, id: response.connectionId });
  });
  return connections;
}

/** Whatever a tab complains about: errors on its console, exceptions, violations of its content security policy. */
export async function watchComplaints(page) {
  const complaints = [];
  page.on('console', (line) => {
    if (['error', 'warning'].includes(line.type())) complaints.push(line.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
  await page.exposeFunction('complain', (text) => complaints.push(text));
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (e) => complain(`${e.violatedDirective}: ${e.blockedURI}`));
  });
  return complaints;
}
