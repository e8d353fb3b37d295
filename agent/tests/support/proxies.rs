//! Real proxies: tinyproxy, which speaks HTTP, and microsocks, which speaks SOCKS 5.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::port::Port;

/// A proxy on a port of 127.0.0.1.
pub struct Proxy {
    pub address: SocketAddr,
    _port: Port,
    child: Child,
    dir: tempfile::TempDir,
}

impl Proxy {
    /// A tinyproxy with more of its configuration.
    pub fn http(more: &str) -> Proxy {
        let (dir, port) = (tempfile::tempdir().unwrap(), Port::new());
        let config = dir.path().join("conf");
        let log = dir.path().join("log");
        let text = format!(
            "Port {}\nListen 127.0.0.1\nTimeout 20\nLogFile \"{}\"\nLogLevel Connect\n{more}\n",
            port.number(),
            log.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("tinyproxy");
        command.arg("-d").arg("-c").arg(&config);
        Proxy::spawn(command, port, dir)
    }

    /// A microsocks with these arguments.
    pub fn socks(arguments: &[&str]) -> Proxy {
        let (dir, port) = (tempfile::tempdir().unwrap(), Port::new());
        let mut command = Command::new("microsocks");
        command.args(["-i", "127.0.0.1", "-p", &port.number().to_string()]).args(arguments);
        Proxy::spawn(command, port, dir)
    }

    fn spawn(mut command: Command, port: Port, dir: tempfile::TempDir) -> Proxy {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{command:?}: {error}; `cargo xtask setup` installs it")
            });
        let address = port.address();
        let mut proxy = Proxy { address, _port: port, child, dir };
        let limit = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            let ended = proxy.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < limit, "{command:?}: {ended:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        proxy
    }

    /// What a tinyproxy says of its requests.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
