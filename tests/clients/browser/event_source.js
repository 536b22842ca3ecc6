// Follows the stream at `url` with the browser's own EventSource, which resumes by itself.
const source = new EventSource(url)

// An event of another type than `message` reaches only who listens to that type. `?event=message` in the URL sends each
// event as a `message`.
for (const type of ['message', 'user.login', 'note', 'evertail.gap', 'evertail.closed']) {
  source.addEventListener(type, ({ type, data }) => show({ type, data }))
}
source.addEventListener('evertail.closed', () => source.close())
