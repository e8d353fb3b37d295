//! The machine that the tests' systemd and systemd-logind tell of: a few units of each kind, with what is
//! seldom, and a few sessions; or as many services as are wanted.

use super::State;
use super::message::{Value, path, text};

pub const SYSTEMD: &str = "org.freedesktop.systemd1";
pub const LOGIND: &str = "org.freedesktop.login1";

/// Name, load state, active state.
const UNITS: &[(&str, &str, &str)] = &[
    ("ssh.service", "loaded", "active"),
    ("getty@tty1.service", "loaded", "active"),
    ("cron.service", "loaded", "failed"),
    ("1st.service", "loaded", "inactive"),
    ("odd\\x2dname.service", "loaded", "activating"),
    ("no-type.service", "loaded", "deactivating"),
    ("again.service", "loaded", "reloading"),
    ("masked.service", "masked", "inactive"),
    ("gone.service", "not-found", "inactive"),
    ("ssh.socket", "loaded", "active"),
    ("old.socket", "loaded", "active"),
    ("apt-daily.timer", "loaded", "active"),
    ("never.timer", "loaded", "inactive"),
    ("multi-user.target", "loaded", "active"),
    ("tmp.mount", "loaded", "active"),
    ("dev-sda.device", "loaded", "active"),
    ("system.slice", "loaded", "active"),
];

/// The path of a unit's object: what is no letter or digit is `_xx`, and a digit at the beginning.
pub fn unit_path(name: &str) -> String {
    let mut path = String::from("/org/freedesktop/systemd1/unit/");
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || byte.is_ascii_digit() && at > 0 {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

fn unit(name: &str, load: &str, active: &str) -> Value {
    Value::Struct(vec![
        text(name),
        text("What it is, für Menschen"),
        text(load),
        text(active),
        text("sub"),
        text(""),
        path(&unit_path(name)),
        Value::U32(0),
        text(""),
        path("/"),
    ])
}

/// Both services.
pub fn small() -> State {
    let mut state = State::default();
    manager(&mut state, UNITS.iter().copied());
    for (at, (name, _, active)) in (0..).zip(UNITS) {
        let of = |interface: &str, property: &str| {
            (unit_path(name), format!("{SYSTEMD}.{interface}"), property.to_owned())
        };
        let mut put = |interface: &str, property: &str, value: Value| {
            state.properties.insert(of(interface, property), value);
        };
        if *active == "active" {
            put("Unit", "ActiveEnterTimestamp", Value::U64(1_700_000_000_123_456 + at));
        }
        match name.rsplit_once('.').unwrap().1 {
            "service" => {
                if *name != "no-type.service" {
                    put("Service", "Type", text(["simple", "notify", "oneshot"][at as usize % 3]));
                    put("Service", "NRestarts", Value::U32(at as u32 * 3));
                }
                // The greatest number stands for none.
                let tasks = if *active == "active" { at + 1 } else { u64::MAX };
                put("Service", "TasksCurrent", Value::U64(tasks));
                put("Service", "TasksMax", Value::U64(if at == 0 { u64::MAX } else { 4915 }));
            }
            "socket" => {
                put("Socket", "NAccepted", Value::U32(u32::MAX - at as u32));
                put("Socket", "NConnections", Value::U32(2));
                if *name != "old.socket" {
                    put("Socket", "NRefused", Value::U32(5));
                }
            }
            "timer" if *name == "never.timer" => put("Timer", "LastTriggerUSec", Value::U64(0)),
            "timer" => put("Timer", "LastTriggerUSec", Value::U64(1_699_999_999_999_999)),
            "mount" => put("Mount", "Type", text("tmpfs")),
            _ => {}
        }
    }
    sessions(&mut state);
    state
}

/// systemd with this many services.
pub fn large(count: usize) -> State {
    let mut state = State::default();
    let names: Vec<String> = (0..count).map(|at| format!("unit-{at}.service")).collect();
    manager(&mut state, names.iter().map(|name| (name.as_str(), "loaded", "active")));
    for name in &names {
        let key = (unit_path(name), format!("{SYSTEMD}.Service"), "Type".to_owned());
        state.properties.insert(key, text("simple"));
    }
    state
}

fn manager<'a>(state: &mut State, units: impl Iterator<Item = (&'a str, &'a str, &'a str)>) {
    let units = units.map(|(name, load, active)| unit(name, load, active)).collect();
    let units = Value::Array("(ssssssouso)", units);
    state.methods.insert((SYSTEMD.into(), "ListUnits".into()), vec![units]);
    let mut put = |name: &str, value: &str| {
        let key =
            ("/org/freedesktop/systemd1".to_owned(), format!("{SYSTEMD}.Manager"), name.to_owned());
        state.properties.insert(key, text(value));
    };
    put("Version", "252.39-1~deb12u1");
    put("Virtualization", "kvm");
    put("SystemState", "running");
}

/// Type, class and whether it is remote.
type Session = (&'static str, &'static str, bool);

/// Number, seat, and the session; None where it has gone meanwhile.
const SESSIONS: &[(&str, &str, Option<Session>)] = &[
    ("1", "seat0", Some(("wayland", "user", false))),
    ("2", "", Some(("tty", "user", true))),
    ("3", "", Some(("tty", "user", true))),
    ("c1", "seat0", Some(("x11", "greeter", false))),
    ("5", "seat-usb", Some(("unheard-of", "manager", false))),
    ("6", "", Some(("unspecified", "background", false))),
    ("7", "seat-gone", Some(("tty", "user", false))),
    ("8", "seat0", None),
];

fn sessions(state: &mut State) {
    let seats = ["seat0", "seat-usb"].map(|name| {
        let path = path(&format!("/org/freedesktop/login1/seat/{}", name.replace('-', "_2d")));
        Value::Struct(vec![text(name), path])
    });
    let seats = Value::Array("(so)", seats.into());
    state.methods.insert((LOGIND.into(), "ListSeats".into()), vec![seats]);
    let mut listed = Vec::new();
    for (number, seat, session) in SESSIONS {
        let object = format!("/org/freedesktop/login1/session/_3{number}");
        listed.push(Value::Struct(vec![
            text(number),
            Value::U32(1000),
            text("anna"),
            text(seat),
            path(&object),
        ]));
        let Some((kind, class, remote)) = session else { continue };
        let mut put = |name: &str, value: Value| {
            let key = (object.clone(), format!("{LOGIND}.Session"), name.to_owned());
            state.properties.insert(key, value);
        };
        put("Type", text(kind));
        put("Class", text(class));
        put("Remote", Value::Bool(*remote));
    }
    let listed = Value::Array("(susso)", listed);
    state.methods.insert((LOGIND.into(), "ListSessions".into()), vec![listed]);
}
