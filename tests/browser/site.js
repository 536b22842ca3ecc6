// A web site on a port of its own, so that its pages are of another origin than the server, as the seed's page is.

import { createServer } from 'node:http';

export class Site {
  /** A site, ended with the test `t`. */
  static async start(t) {
    const site = new Site();
    await new Promise((resolve) => site.http.listen(0, '127.0.0.1', resolve));
    t.after(() => {
      site.http.close();
      site.http.closeAllConnections();
    });
    return site;
  }

  constructor() {
    this.pages = new Map();
    this.http = createServer((request, response) => {
      const page = this.pages.get(request.url);
      response.writeHead(page ? 200 : 404, { 'content-type': 'text/html; charset=utf-8' });
      response.end(page);
    });
  }

  origin(host = 'localhost') {
    return `http://${host}:${this.http.address().port}`;
  }

  /** Puts a page on the site and returns its address. */
  put(html, host) {
    const path = `/${this.pages.size}.html`;
    this.pages.set(path, html);
    return this.origin(host) + path;
  }
}

/** The page that this server is made for, unchanged: no client code but one handler. */
export const seedPage = (api) => `<!doctype html>
<meta charset="utf-8">
<title>Audits</title>
<link rel="icon" href="data:,">
<ul id="audits"></ul>
<script>
  const source = new EventSource('${api}/audits');
  source.onmessage = e => {
    const audit = JSON.parse(e.data);
    const item = document.createElement('li');
    item.textContent = audit.id + ' ' + audit.created_at;
    document.getElementById('audits').append(item);
  };
</script>
`;

/** A page that keeps what its one EventSource dispatches, in `seen`. It too leaves resuming to the browser. */
export const readerPage = (url, types = []) => `<!doctype html>
<meta charset="utf-8">
<title>Reader</title>
<link rel="icon" href="data:,">
<script>
  const seen = [];
  const see = ({ type, data, lastEventId }) => seen.push({ type, data, lastEventId });
  const source = new EventSource(${JSON.stringify(url)});
  source.onmessage = see;
  for (const type of ${JSON.stringify(types)}) source.addEventListener(type, see);
</script>
`;

/** A page without anything. */
export const emptyPage = '<!doctype html><title>Empty</title><link rel="icon" href="data:,">';
