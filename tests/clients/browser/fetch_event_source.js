// Follows the stream at `url` with Microsoft's fetch-event-source: a module of a page, which may set headers.
import { fetchEventSource } from '@microsoft/fetch-event-source'

let last
let isClosed = false
await fetchEventSource(url, {
  // By itself it takes over an id before the frame is whole, and would lose the event of a frame that is cut off there.
  fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...(last && { 'last-event-id': last }) } }),
  onmessage({ event, data, id }) {
    show({ type: event || 'message', data })
    last = id || last
    isClosed ||= event === 'evertail.closed'
  },
  // A server that stops ends the stream in good order. By itself it comes back only after an error.
  onclose() {
    if (!isClosed) throw new Error('the stream has ended')
  },
  onerror() {}
})
