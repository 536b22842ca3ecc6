//! What `scripts/bench` measures beside Evertail: a naive server of fifty lines, and drivers for servers that do not speak
//! HTTP. Not shipped.
//!
//! ```text
//! peers naive ADDRESS FILE
//! peers nats-append|redis-append ADDRESS CONNECTIONS SECONDS
//! peers nats-replay|redis-replay ADDRESS EVENTS READERS
//! peers fsync FILE
//! ```
//! Each prints one JSON object, of the shape that `evertail bench` prints.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that fails says so by panicking"
)]

mod drive;
mod fsync;
mod naive;
mod nats;
mod redis;

use tokio::runtime::Builder;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let one_thread = Builder::new_current_thread().enable_all().build().unwrap();
    match arguments[..] {
        ["naive", address, file] => {
            let threads = Builder::new_multi_thread().enable_all().build().unwrap();
            threads.block_on(naive::serve(address, file));
        }
        ["nats-append", address, connections, seconds] => {
            one_thread.block_on(nats::prepare(address));
            let connect = async || nats::Producer::connect(address).await;
            let run = drive::append(connections.parse().unwrap(), seconds.parse().unwrap(), connect);
            println!("{}", one_thread.block_on(run).json());
        }
        ["redis-append", address, connections, seconds] => {
            let connect = async || redis::Producer::connect(address).await;
            let run = drive::append(connections.parse().unwrap(), seconds.parse().unwrap(), connect);
            println!("{}", one_thread.block_on(run).json());
        }
        ["nats-replay", address, events, readers] => {
            let (events, readers) = (events.parse().unwrap(), readers.parse().unwrap());
            one_thread.block_on(nats::fill(address, events));
            let read = async || nats::read(address, events).await;
            println!("{}", one_thread.block_on(drive::replay(events, readers, read)).json());
        }
        ["redis-replay", address, events, readers] => {
            let (events, readers) = (events.parse().unwrap(), readers.parse().unwrap());
            one_thread.block_on(redis::fill(address, events));
            let read = async || redis::read(address, events).await;
            println!("{}", one_thread.block_on(drive::replay(events, readers, read)).json());
        }
        ["fsync", file] => println!("{}", fsync::measure(file).json()),
        _ => panic!("see the first lines of benches/peers/main.rs for the arguments"),
    }
}
