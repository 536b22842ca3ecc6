//! A crowd of connections that say something and never read. Its sockets are those of a process of their own: as many as a
//! server may have are more than the tests of this process leave.

use crate::server::in_time;
use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, ChildStdout, Command};

/// What the process says once all are connected.
const CONNECTED: &str = "the crowd is connected";
/// Connected at one time; well below what the server's backlog takes, where one too many would wait for a second.
const AT_ONCE: usize = 100;
/// What tells the process that it is to be one, where to connect, how often, and what to say.
const VARIABLES: [&str; 3] = ["CROWD_ADDRESS", "CROWD_COUNT", "CROWD_SAYS"];

/// The most descriptors that this process may have, or `None` if there is no bound. It has them from here on.
pub(crate) fn descriptors_max() -> Option<usize> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.map(|maximum| maximum.try_into().unwrap())
}

/// The process that holds the connections. They end with it, and it with this value.
pub(crate) struct Crowd {
    process: Child,
    /// Open to the end: a test that takes long says so, and without a listener the process would end at that.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Crowd {
    /// So many connections that each say the same. Returns once all are connected.
    pub(crate) async fn start(address: SocketAddr, count: usize, says: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "crowd::holds_its_connections_until_it_is_ended", "--nocapture"]);
        let values = [address.to_string(), count.to_string(), says.to_owned()];
        command.envs(VARIABLES.into_iter().zip(values));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap()).lines();
        while let Some(line) = in_time(stdout.next_line()).await.unwrap() {
            if line.contains(CONNECTED) {
                return Self { process, _stdout: stdout };
            }
        }
        panic!("the crowd ended before it was connected: {:?}", process.wait().await);
    }

    /// Whether it still holds what the server has not ended.
    pub(crate) fn is_there(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }
}

/// The other process. Without its variables, as when all tests are run, there is nothing to do.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "what the process that started this one waits for")]
async fn holds_its_connections_until_it_is_ended() {
    let [Ok(address), Ok(count), Ok(says)] = VARIABLES.map(std::env::var) else { return };
    let (address, mut missing): (SocketAddr, usize) = (address.parse().unwrap(), count.parse().unwrap());
    descriptors_max();
    let mut held = Vec::with_capacity(missing);
    while missing > 0 {
        let group = missing.min(AT_ONCE);
        held.extend(join_all((0..group).map(|_| connect(address, &says))).await);
        missing -= group;
    }
    println!("{CONNECTED}");
    // Its end is that of the process that started this one, however that comes.
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await.unwrap();
    drop(held);
}

async fn connect(address: SocketAddr, says: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut stream = in_time(socket.connect(address)).await.unwrap();
    // It may have been ended meanwhile.
    let _ = stream.write_all(says.as_bytes()).await;
    stream
}
