// @durable-streams/server with its files in a folder: node durable-streams.mjs PORT FOLDER MODULES
import { createRequire } from 'node:module'

const [port, dataDir, modules] = process.argv.slice(2)
const { DurableStreamTestServer } = createRequire(`${modules}/`)('@durable-streams/server')
await new DurableStreamTestServer({ port: Number(port), dataDir }).start()
