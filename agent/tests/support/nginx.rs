//! A real nginx: TLS and HTTP/2 before a server of the tests.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::certificates::Ca;
use super::port::Port;

pub struct Nginx {
    port: Port,
    child: Child,
    dir: tempfile::TempDir,
}

impl Nginx {
    /// Serves `https://127.0.0.1` with a certificate of this CA and passes everything on to `upstream`.
    /// `server` is more of its configuration's `server` block.
    pub fn new(ca: &Ca, upstream: SocketAddr, server: &str) -> Nginx {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = ca.server_files(&["127.0.0.1"]);
        let port = Port::new();
        let address = port.address();
        let root = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let here = dir.path().display();
        let protocols = match server.contains("ssl_protocols") {
            true => "",
            false => "ssl_protocols TLSv1.2 TLSv1.3;",
        };
        let text = format!(
            "{root} daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{ log_format proto '$server_protocol $ssl_protocol $status'; access_log {here}/access.log proto;\n\
             client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/f;\n\
             uwsgi_temp_path {here}/u; scgi_temp_path {here}/s; client_max_body_size 64m;\n\
             server {{ listen {address} ssl http2; ssl_certificate {}; ssl_certificate_key {}; {protocols} {server}\n\
             location / {{ proxy_pass http://{upstream}; proxy_http_version 1.1; proxy_set_header Connection '';\n\
             proxy_set_header Host $host; }} }} }}\n",
            cert.display(),
            key.display(),
        );
        let config = dir.path().join("nginx.conf");
        std::fs::write(&config, text).unwrap();
        let child = Command::new("nginx")
            .args(["-e", "stderr", "-p"])
            .arg(dir.path())
            .arg("-c")
            .arg(&config)
            .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx is missing: `cargo xtask setup` installs it");
        let mut nginx = Nginx { port, child, dir };
        let limit = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            let ended = nginx.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < limit, "nginx: {ended:?} {}", nginx.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        nginx
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.port.address())
    }

    /// A line for each request: HTTP's version, TLS's, the status.
    pub fn requests(&self) -> Vec<String> {
        // It is written after the answer.
        std::thread::sleep(Duration::from_millis(100));
        let text = std::fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
