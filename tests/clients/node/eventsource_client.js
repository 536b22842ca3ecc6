// Follows the stream at a URL with npm's eventsource-client.
import { createEventSource } from 'eventsource-client'

const source = createEventSource(process.argv[2])
for await (const { event = 'message', data } of source) {
  console.log(JSON.stringify({ type: event, data }))
  if (event === 'evertail.closed') source.close()
}
