// Follows the stream at `url`, also where Firefox gives up: in a page of another origin, once the server is gone when it
// wants to reconnect.
let last

function follow() {
  const at = new URL(url)
  if (last) at.searchParams.set('last_event_id', last)
  const source = new EventSource(at)
  for (const type of ['message', 'user.login', 'note', 'evertail.cursor', 'evertail.gap', 'evertail.closed']) {
    source.addEventListener(type, ({ type, data, lastEventId }) => {
      show({ type, data })
      last = lastEventId
    })
  }
  source.addEventListener('evertail.closed', () => source.close())
  source.addEventListener('error', () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 1000)
  })
}

follow()
