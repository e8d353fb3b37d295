//! What "every part on" takes beside the log file: TLS before both servers, with a CA made for the occasion
//! (openssl and nginx), and a journal that grows (systemd-journal-remote). It must not know the agent.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::receiver::Receiver;
use super::volume::said;
use crate::context::is_root;
use crate::process::{Answer, Interrupt, Running};
use crate::{Result, http, process};

const JOURNAL_REMOTE: &str = "/lib/systemd/systemd-journal-remote";
const START: Duration = Duration::from_secs(20);

/// What is missing for it, if anything is.
pub(crate) fn missing() -> Option<&'static str> {
    ["openssl", "nginx", JOURNAL_REMOTE].into_iter().find(|name| process::find(name).is_none())
}

/// TLS on one port before two servers, by the paths that are theirs.
pub(crate) struct Tls {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// The CA that its certificate is of.
    pub(crate) ca: PathBuf,
    /// Who takes the lines behind it.
    pub(crate) lines: Receiver,
    _nginx: Running,
}

impl Tls {
    /// Makes the certificates in `folder` and starts nginx, which also speaks HTTP/2.
    ///
    /// # Errors
    /// openssl failed, or nginx does not serve.
    pub(crate) fn start(
        interrupt: &Interrupt,
        folder: &Path,
        metrics: SocketAddr,
        lines: Receiver,
    ) -> Result<Tls> {
        let ca = certificates(folder)?;
        let address = http::free_address()?;
        let user = if is_root() { "user root;" } else { "" };
        let here = folder.display();
        let mut text = format!(
            "{user} daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;\n\
             events {{ worker_connections 64; }}\nhttp {{ access_log off; client_max_body_size 64m;\n"
        );
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            let _ = writeln!(text, "{kind}_temp_path {here}/{kind};");
        }
        let _ = write!(
            text,
            "server {{ listen {address} ssl http2; keepalive_timeout 300s;\n\
             ssl_certificate {here}/server.pem; ssl_certificate_key {here}/server.key;\n\
             ssl_protocols TLSv1.2 TLSv1.3; proxy_http_version 1.1; proxy_set_header Connection '';\n\
             location /api/ {{ proxy_pass http://{metrics}; }}\n\
             location /loki/ {{ proxy_pass http://{}; }} }} }}\n",
            lines.address
        );
        let config = folder.join("nginx.conf");
        write(&config, &text)?;
        let mut command = Command::new(process::find("nginx").ok_or("there is no nginx")?);
        command.args(["-e", "stderr", "-p"]).arg(folder).arg("-c").arg(&config);
        let mut nginx = Running::start("nginx", &mut command, Some(&folder.join("nginx.log")))?;
        interrupt.wait_for("nginx", START, || {
            nginx.check()?;
            Ok(match TcpStream::connect(address) {
                Ok(_) => Answer::Yes(()),
                Err(error) => Answer::NotYet(error.to_string()),
            })
        })?;
        Ok(Tls { address, ca, lines, _nginx: nginx })
    }
}

/// A CA, and a certificate of its for 127.0.0.1: `ca.pem`, `server.pem`, `server.key`.
fn certificates(folder: &Path) -> Result<PathBuf> {
    let at = |name: &str| folder.join(name);
    write(
        &at("ca.cnf"),
        "[req]\ndistinguished_name=d\nx509_extensions=v\n[d]\n[v]\n\
         basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n",
    )?;
    let address = Ipv4Addr::LOCALHOST;
    let extensions = format!("subjectAltName=IP:{address}\nbasicConstraints=CA:FALSE\n");
    write(&at("server.cnf"), &extensions)?;
    let openssl = |arguments: &[&str]| {
        said(Command::new("openssl").args(arguments).current_dir(folder)).map(drop)
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let ca = ["-config", "ca.cnf", "-subj", "/CN=footprint CA", "-days", "2"];
    openssl(&[&["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem"], &key[..], &ca].concat())?;
    let server = ["-config", "ca.cnf", "-subj", "/CN=footprint"];
    openssl(
        &[&["req", "-keyout", "server.key", "-out", "server.csr"], &key[..], &server].concat(),
    )?;
    openssl(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "server.cnf",
        "-out",
        "server.pem",
    ])?;
    Ok(at("ca.pem"))
}

/// A journal that gets an entry each second. It ends with the value.
pub(crate) struct Journal {
    /// The folder that its file is in.
    pub(crate) directory: PathBuf,
    child: Child,
    stop: Arc<AtomicBool>,
}

impl Journal {
    /// Begins one in `folder`.
    ///
    /// # Errors
    /// systemd-journal-remote can't be started.
    pub(crate) fn start(folder: &Path) -> Result<Journal> {
        let directory = folder.join("journal");
        let fail = |error| format!("{JOURNAL_REMOTE}, into {}: {error}", directory.display());
        fs::create_dir_all(&directory).map_err(fail)?;
        let log = fs::File::create(folder.join("journal.log")).map_err(fail)?;
        let mut child = Command::new(JOURNAL_REMOTE)
            .arg("--output")
            .arg(directory.join("system.journal"))
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(fail)?;
        let stop = Arc::new(AtomicBool::new(false));
        if let Some(input) = child.stdin.take() {
            let stopped = Arc::clone(&stop);
            thread::spawn(move || feed(input, &stopped));
        }
        Ok(Journal { directory, child, stop })
    }

    /// That it is still being written.
    ///
    /// # Errors
    /// Its writer has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            ended => Err(format!("{JOURNAL_REMOTE} has ended by itself: {ended:?}")),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Entries in the export format, until the reader is gone.
fn feed(mut input: ChildStdin, stop: &AtomicBool) {
    for number in 1_u64.. {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let entry = format!(
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={:032x}\n_MACHINE_ID={:032x}\n\
             _TRANSPORT=syslog\nPRIORITY=6\nSYSLOG_IDENTIFIER=footprint\n_SYSTEMD_UNIT=footprint.service\n\
             MESSAGE=entry {number} of a journal that is written to once a second\n\n",
            now.as_micros(),
            number * 1_000_000,
            7,
            7
        );
        if stop.load(Ordering::SeqCst) || input.write_all(entry.as_bytes()).is_err() {
            return;
        }
        thread::sleep(Duration::from_secs(1));
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| format!("{} can't be written: {error}", path.display()))
}
