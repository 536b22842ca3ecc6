// Follows the stream at a URL with npm's eventsource, which is the browser's EventSource for Node.
import { EventSource } from 'eventsource'

const source = new EventSource(process.argv[2])

// An event of another type than `message` reaches only who listens to that type. `?event=message` in the URL sends each
// event as a `message`.
for (const type of ['message', 'user.login', 'note', 'evertail.gap', 'evertail.closed']) {
  source.addEventListener(type, ({ type, data }) => console.log(JSON.stringify({ type, data })))
}

// While it waits to reconnect it does not keep Node from ending.
const alive = setInterval(() => {}, 60_000)
source.addEventListener('evertail.closed', () => {
  source.close()
  clearInterval(alive)
})
