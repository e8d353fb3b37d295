//! Good configurations, and one error for each kind of bad one.

use super::*;

/// On a host that no profile but the generic one matches, wherever the test runs.
fn parse_text(text: &str) -> Result<Config, ConfigError> {
    with_sets(text, &[])
}

fn with_sets(text: &str, sets: &[&str]) -> Result<Config, ConfigError> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    parse_for(text, Path::new("mote.toml"), &sets, &|_| boards::Facts::default())
}

#[test]
fn empty_file_is_the_default() {
    let config = parse_text("").unwrap();
    assert_eq!(config.agent.interval, Duration::from_secs(60));
    assert_eq!(config.agent.instance, crate::host::hostname());
    assert_eq!(config.metrics.job, "integrations/node_exporter");
    let default = crate::collector::TABLE.iter().filter(|entry| entry.default).count();
    assert_eq!(config.metrics.collectors.len(), default);
    assert_eq!(config.http.unwrap().to_string(), "127.0.0.1:9911");
    assert!(config.mimir.is_empty() && config.loki.is_empty() && config.logs.files.is_empty());
    assert_eq!((config.wal.metrics_max_bytes, config.wal.sync), (32 << 20, None));
}

#[test]
fn everything_set() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "hunter2\n").unwrap();
    let text = format!(
        r#"
        [agent]
        instance = "pi"
        labels = {{ site = "home" }}
        interval = "15s"
        state_dir = "/tmp/mote"
        log = {{ level = "debug", format = "logfmt" }}
        [host]
        proc = "/host/proc"
        [metrics]
        job = "node"
        max_series = 100
        collectors = {{ disable = ["time"] }}
        [metrics.filesystem]
        mount_timeout = "1s"
        fs_types_exclude = '^tmpfs$'
        [metrics.netdev]
        device_exclude = '^(veth.*|cali.*)$'
        [probes]
        block = "off"
        [[mimir]]
        url = "https://mimir.example/api/v1/push"
        tenant = "home"
        basic_auth = {{ username = "u", password_file = "{secret}" }}
        headers = {{ X-Extra = "1" }}
        tls = {{ min_version = "1.3", insecure_skip_verify = true }}
        protocol = "1.0"
        max_samples_per_send = 500
        send_interval = "30s"
        timeout = "10s"
        backoff = {{ min = "2s", max = "1m" }}
        [[loki]]
        url = "http://127.0.0.1:3100/loki/api/v1/push"
        batch_bytes = "64KiB"
        batch_wait = "1s"
        [wal]
        sync = "5m"
        [wal.metrics]
        max_bytes = "8MiB"
        [wal.logs]
        max_bytes = "4MiB"
        on_full = "drop-oldest"
        [logs]
        max_line = "16KiB"
        [[logs.file]]
        paths = ["/var/log/*.log"]
        exclude = ["*.gz"]
        labels = {{ job = "file-logs" }}
        [logs.kernel]
        when = "always"
        min_level = "warning"
        labels = {{ job = "kernel-logs" }}
        [[logs.syslog]]
        listen = "udp://0.0.0.0:5514"
        allow = ["192.168.0.0/16", "10.0.0.1"]
        use_timestamp = true
        [[logs.syslog]]
        listen = "unix:///dev/log"
        [http]
        listen = "[::1]:9000"
        "#,
        secret = secret.path().display()
    );
    let config = parse_text(&text).unwrap();
    assert_eq!(config.agent.labels.get("site"), Some("home"));
    assert_eq!(config.host.proc, Path::new("/host/proc"));
    assert!(!config.metrics.collectors.contains(&"time"));
    let mimir = &config.mimir[0];
    assert_eq!((mimir.batch, mimir.wait), (500, Duration::from_secs(30)));
    assert_eq!(mimir.backoff, (Duration::from_secs(2), Duration::from_secs(60)));
    assert_eq!(mimir.connection.tenant.as_deref(), Some("home"));
    assert!(mimir.connection.tls.insecure_skip_verify);
    assert_eq!((config.loki[0].batch, config.loki[0].wait), (64 << 10, Duration::from_secs(1)));
    assert_eq!(config.wal.sync, Some(Duration::from_secs(300)));
    assert!(config.wal.logs_drop_oldest);
    let file = &config.logs.files[0];
    assert_eq!(file.max_line, 16 << 10);
    let labels: Vec<_> = file.labels.iter().collect();
    assert_eq!(labels, [("instance", "pi"), ("job", "file-logs"), ("site", "home")]);
    let kernel = config.logs.kernel.as_ref().unwrap();
    assert_eq!((kernel.when, kernel.min_level), (crate::logs::kernel::When::Always, 4));
    let labels: Vec<_> = kernel.labels.iter().collect();
    assert_eq!(labels, [("instance", "pi"), ("job", "kernel-logs"), ("site", "home")]);
    let [udp, unix] = &config.logs.syslog[..] else { panic!("two sections") };
    assert!(udp.use_timestamp && udp.listen.is_remote() && udp.allow.len() == 2);
    assert!(!unix.use_timestamp && unix.listen.to_string() == "unix:///dev/log");
    // Whatever is printed of it, the password is not.
    assert!(!format!("{config:?}").contains("hunter2"));
}

/// A text, the place that the error must name, a part of the problem and a part of the hint.
#[test]
fn bad_input_is_told_with_its_place_and_a_hint() {
    let cases: &[(&str, &str, &str, &str)] = &[
        ("[agent]\nintervall = \"5s\"", "2:1", "unknown key \"agent.intervall\"", "\"interval\""),
        ("[agnet]\n", "1:2", "unknown key \"agnet\"", "\"agent\""),
        ("[agent]\nxyzzy = 1", "2:1", "unknown key", "known keys here"),
        ("[agent]\ninterval = 5", "2:12", "agent.interval is an integer", "quotes"),
        ("[agent]\ninterval = \"5 parsecs\"", "2:12", "\"5 parsecs\" is no duration", "\"30s\""),
        ("[agent]\ninterval = \"10ms\"", "2:12", "agent.interval is 10ms", "from 100ms"),
        ("[agent]\ninterval = ", "2:12", "", "TOML"),
        (
            "[agent]\ninstance = \"${NO_SUCH_VARIABLE}\"",
            "2:12",
            "NO_SUCH_VARIABLE is not set",
            ":-default",
        ),
        ("[agent]\nboard = \"raspbery-pi-4\"", "2:9", "no board", "\"raspberry-pi-4\""),
        ("[agent]\nboard = \"vax\"", "2:9", "no board \"vax\"", "mote boards"),
        ("[agent]\nboard = 4", "2:9", "agent.board is an integer", "quotes"),
        ("[agent]\nmemory_limit = \"1MiB\"", "2:16", "agent.memory_limit is 1MiB", "from 4MiB"),
        ("[agent]\nlabels = { \"a b\" = \"c\" }", "2:12", "not a label name", "labels = {"),
        ("[agent]\nlabels = { __x = \"c\" }", "2:12", "reserved", ""),
        ("[agent]\nlog = { level = \"loud\" }", "2:17", "agent.log.level is \"loud\"", "\"debug\""),
        ("agent = 3", "1:9", "agent is an integer, and should be a table", ""),
        ("[metrics]\nmax_series = 0", "2:14", "metrics.max_series is 0", "from 1"),
        ("[metrics]\nmax_series = 1.5", "2:14", "is a float", ""),
        ("[metrics.intervals]\ncpuu = \"1m\"", "2:1", "no collector \"cpuu\"", "\"cpu\""),
        ("[metrics.intervals]\ncpu = \"2h\"", "2:7", "metrics.intervals.cpu is 2h", "1s to 1h"),
        ("[metrics.intervals]\ncpu = \"soon\"", "2:7", "metrics.intervals.cpu: ", ""),
        ("[metrics.collectors]\nenable = [\"cpuu\"]", "2:11", "no collector \"cpuu\"", "\"cpu\""),
        ("[metrics.collectors]\nonly = \"cpu\"", "2:8", "should be a list of strings", ""),
        (
            "[metrics.netdev]\ndevice_exclude = \"(veth\"",
            "2:18",
            "no regular expression: unclosed group",
            "RE2",
        ),
        ("[metrics.filesystem]\nfs_types_exclude = '(?=x)'", "2:20", "look-around", "look-around"),
        ("[probes]\nblock = \"maybe\"", "2:9", "probes.block is \"maybe\"", "\"auto\""),
        ("[probes]\nblokc = \"on\"", "2:1", "unknown key", "\"block\""),
        (
            "[mimir]\nurl = \"http://a\"",
            "1:",
            "mimir is a table, and should be a list of tables",
            "[[mimir]]",
        ),
        ("[[mimir]]\ntenant = \"x\"", "1:", "[[mimir]] has no url", "http://"),
        ("[[mimir]]\nurl = \"ftp://x/\"", "2:7", "url:", "http://"),
        ("[[mimir]]\nurl = \"http://u:p@x/\"", "2:7", "basic_auth", ""),
        (
            "[[mimir]]\nurl = \"http://x/\"\nbasic_auth = { username = \"u\", password_file = \"/no/such\" }",
            "3:48",
            "/no/such",
            "readable",
        ),
        (
            "[[mimir]]\nurl = \"http://x/\"\nbearer_token_file = \"/no/such\"",
            "3:21",
            "/no/such",
            "readable",
        ),
        (
            "[[mimir]]\nurl = \"https://x/\"\ntls = { ca_file = \"/no/such\" }",
            "3:19",
            "/no/such",
            "PEM",
        ),
        (
            "[[mimir]]\nurl = \"http://x/\"\nbearer_token = \"t\"\nbearer_token_file = \"/t\"",
            "4:21",
            "bearer_token and bearer_token_file exclude",
            "keep the file",
        ),
        (
            "[[loki]]\nurl = \"http://x/\"\nbearer_token = \"t\"\nbasic_auth = { username = \"u\" }",
            "3:16",
            "bearer_token and basic_auth exclude",
            "",
        ),
        (
            "[[loki]]\nurl = \"http://x/\"\nbasic_auth = { username_file = \"/no/such\", password = \"p\" }",
            "3:",
            "/no/such",
            "readable",
        ),
        (
            "[[mimir]]\nurl = \"http://x/\"\nproxy_url = \"ftp://p\"",
            "3:13",
            "proxy_url: column 1",
            "http://user@proxy:3128",
        ),
        (
            "[[mimir]]\nurl = \"http://x/\"\nno_proxy = \"h\"",
            "3:12",
            "no_proxy goes with proxy_url",
            "NO_PROXY",
        ),
        (
            "[[mimir]]\nurl = \"http://x/\"\nproxy_url = \"http://p\"\nproxy_password_file = \"/no/such\"",
            "4:23",
            "goes with a user in proxy_url",
            "",
        ),
        (
            "[[mimir]]\nurl = \"http://x/\"\nproxy_url = \"http://u@p\"\nproxy_password_file = \"/no/such\"",
            "4:23",
            "/no/such",
            "readable",
        ),
        (
            "[[mimir]]\nurl = \"http://x/\"\nbasic_auth = { username = \"u\" }",
            "3:14",
            "no password_file",
            "",
        ),
        ("[[mimir]]\nurl = \"http://x/\"\nheaders = { \"a b\" = \"1\" }", "3:13", "a b", ""),
        ("[[mimir]]\nurl = \"http://x/\"\nprotocol = \"3.0\"", "3:12", "protocol", "\"1.0\""),
        (
            "[[mimir]]\nurl = \"http://x/\"\nbackoff = { min = \"1m\", max = \"1s\" }",
            "3:11",
            "shorter than",
            "",
        ),
        (
            "[[mimir]]\nurl = \"http://x/\"\n[[mimir]]\nurl = \"http://x/\"",
            "4:7",
            "twice",
            "cursor",
        ),
        ("[wal]\nsync = \"sometimes\"", "2:8", "wal.sync", "\"round\""),
        ("[wal.metrics]\nmax_bytes = \"64MB\"", "2:13", "\"64MB\" is no size", "MiB"),
        (
            "[wal.metrics]\nmax_bytes = \"1KiB\"",
            "2:13",
            "wal.metrics.max_bytes is 1KiB",
            "from 1MiB",
        ),
        ("[[logs.file]]\nlabels = {}", "1:", "has no paths", "paths ="),
        ("[[logs.file]]\npaths = [\"/var/[log\"]", "2:10", "/var/[log", ""),
        ("[[logs.file]]\npaths = [1]", "2:10", "is an integer", "quotes"),
        (
            "[wal.logs]\nmax_bytes = \"1MiB\"\n[logs]\nmax_line = \"512KiB\"\n[[logs.file]]\npaths = [\"/x\"]",
            "3:1",
            "more than a sixteenth",
            "shorten",
        ),
        ("[http]\nlisten = \"9911\"", "2:10", "\"9911\" is no address", "127.0.0.1:9911"),
        ("a = 1\na = 2", "2:1", "duplicate", ""),
    ];
    let of_logs = [
        (
            "[[loki]]\nurl = \"http://x\"\nmax_entry_age = \"59m\"",
            "3:17",
            "less than 1h",
            "\"168h\"",
        ),
        (
            "[[loki]]\nurl = \"http://x\"\nmax_entry_age = \"no\"",
            "3:17",
            "max_entry_age",
            "\"off\"",
        ),
        ("[[loki]]\nurl = \"http://x\"\nmax_rat = \"1MiB\"", "3:1", "max_rat", "\"max_rate\""),
        ("[logs.kernel]\nwhen = \"never\"", "2:8", "when", "no-journal"),
        ("[logs.kernel]\nmin_level = \"warn\"", "2:13", "min_level", "\"warning\""),
        ("[[logs.syslog]]", "1:1", "no listen", "udp://"),
        ("[[logs.syslog]]\nlisten = \"http://x\"", "2:10", "none of udp://", "udp://"),
        ("[[logs.syslog]]\nlisten = \"udp://0.0.0.0:514\"", "2:10", "none is allowed", "allow ="),
        (
            "[[logs.syslog]]\nlisten = \"udp://[::]:514\"\nallow = [\"10.0.0.0/40\"]",
            "3:10",
            "too many bits",
            "a range",
        ),
        (
            "[[logs.syslog]]\nlisten = \"tcp://localhost\"\n[[logs.syslog]]\nlisten = \"tcp://127.0.0.1:601\"",
            "4:10",
            "given twice",
            "one section",
        ),
    ];
    for (text, place, problem, hint) in cases.iter().chain(&of_logs) {
        let error = parse_text(text).map(drop).expect_err(text);
        let shown = error.to_string();
        assert!(shown.starts_with(&format!("mote.toml:{place}")), "{text}\n{shown}");
        assert!(error.problem.contains(problem), "{text}\n{shown}");
        assert!(error.hint.contains(hint), "{text}\n{shown}");
    }
}

#[test]
fn set_overrides_and_is_told_as_the_place() {
    let config = with_sets(
        "[agent]\ninterval = \"60s\"",
        &[
            "agent.interval=5s",
            "metrics.max_series=7",
            "agent.labels={ a = \"b\" }",
            "http.listen=",
        ],
    )
    .unwrap();
    assert_eq!(config.agent.interval, Duration::from_secs(5));
    assert_eq!((config.metrics.max_series, config.http), (7, None));
    assert_eq!(config.agent.labels.get("a"), Some("b"));
    let bad = |set: &str| with_sets("", &[set]).map(drop).unwrap_err().to_string();
    assert!(bad("agent.intervall=5s").starts_with("--set agent.intervall: unknown key"));
    assert!(bad("agent.interval").contains("no '='"));
    assert!(bad("=5").contains("is no key"));
    assert!(bad("agent.interval.x=5").contains("agent.interval"));
    let list = with_sets("[[mimir]]\nurl = \"http://x/\"", &["mimir.url=http://y/"]);
    assert!(list.map(drop).unwrap_err().problem.contains("is a list"));
}

#[test]
fn a_set_that_would_take_memory_or_stack_without_bound_is_refused() {
    for value in ["[[", "1,", "."] {
        let error = with_sets("", &[&format!("a={}", value.repeat(100_000))]).unwrap_err();
        assert!(error.problem.contains("4096 are the most"), "{error}");
        assert!(error.to_string().len() < 500, "{error}");
    }
    let error = with_sets("", &[&vec!["a"; 2_000].join(".")]).unwrap_err();
    assert!(error.problem.contains("no '='"), "{error}");
    // Each name is a level of nesting, and each level one of the stack.
    let error = with_sets("", &[&format!("{}=1", vec!["a"; 2_000].join("."))]).unwrap_err();
    assert!(error.problem.contains("is no key"), "{error}");
}

#[test]
fn secrets_are_not_in_errors() {
    let text = "[[mimir]]\nurl = \"http://x/\"\nbasic_auth = { username = \"u\", password = \"hunter2\\n\" }\nheaders = { X = \"a\\nb\" }";
    let shown =
        parse_text(text).map_or_else(|error| error.to_string(), |config| format!("{config:?}"));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn what_is_unsafe_is_told_for_each_endpoint() {
    let text = "[[mimir]]\nurl = \"http://nas.lan/\"\nbearer_token = \"hunter2\"\n\
                [[loki]]\nurl = \"https://nas.lan/\"\ntls.insecure_skip_verify = true\n\
                [[loki]]\nurl = \"http://127.0.0.1/\"\nbasic_auth = { username = \"u\", password = \"hunter2\" }";
    let warnings = parse_text(text).unwrap().warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("http://nas.lan/: the bearer token goes over plain HTTP"));
    assert!(warnings[1].starts_with("https://nas.lan/: tls.insecure_skip_verify"));
    assert!(!warnings.concat().contains("hunter2"));
}

#[test]
fn memory_limit_is_checked_against_what_the_wals_may_take() {
    assert_eq!(parse_text("").unwrap().agent.memory_limit, 16 << 20);
    let text = "[agent]\nmemory_limit = \"8MiB\"\n[wal]\nmemory = \"2MiB\"";
    let config = parse_text(text).unwrap();
    assert_eq!(config.agent.memory_limit, 8 << 20);
    let warnings = config.warnings();
    assert!(warnings.len() == 1 && warnings[0].starts_with("wal.memory, twice"), "{warnings:?}");
    let small = parse_text("[agent]\nmemory_limit = \"3MiB\"").unwrap_err().to_string();
    assert!(small.contains("memory_limit") && small.contains("4MiB"), "{small}");
}

#[test]
fn missing_file_is_an_error_and_no_default() {
    let source = Source { path: Some("/no/such/mote.toml".into()), sets: Vec::new() };
    let shown = source.load().map(drop).unwrap_err().to_string();
    assert!(shown.contains("/no/such/mote.toml") && shown.contains("--config"), "{shown}");
}

/// `MOTE_UPDATE=1 cargo test reference` writes the page anew.
#[test]
fn reference_is_what_docs_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    if std::env::var_os("MOTE_UPDATE").is_some() {
        std::fs::write(&path, reference()).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == reference(),
        "docs/configuration.md is out of date: run this test with MOTE_UPDATE=1"
    );
}

#[test]
fn rules_that_can_not_work_are_refused_where_they_stand() {
    let whole = parse_text(
        "[[metrics.relabel]]\nsource_labels = [\"__name__\"]\nregex = 'node_(.*)'\ntarget_label = \"__name__\"\n\
         replacement = \"x_${1}\"\naction = \"Replace\"\n[[mimir]]\nurl = \"http://h/push\"\nlabels = { cluster = \"a\" }\n\
         [[mimir.relabel]]\naction = \"labeldrop\"\nregex = \"id\"\n[[mimir.relabel]]\naction = \"drop\"\n\
         [[loki]]\nurl = \"http://h/push\"\n[[loki.relabel]]\naction = \"keep\"\n",
    );
    let config = whole.unwrap();
    assert_eq!(config.metrics.relabel.len(), 1);
    assert_eq!((config.mimir[0].relabel.len(), config.loki[0].relabel.len()), (2, 1));
    assert_eq!(config.mimir[0].labels.to_string(), "{cluster=\"a\"}");
    for (rule, place, problem) in [
        ("action = \"hashmod\"\ntarget_label = \"a\"", 1, "needs a modulus"),
        ("regex = \"a\"", 1, "needs a target_label"),
        ("action = \"droop\"", 2, "did you mean \"drop\"?"),
        ("target_label = \"a-b\"", 2, "\"a-b\" is no label name"),
        ("target_label = \"a\"\nregex = \"(\"", 3, "unclosed group"),
        ("action = \"labelkeep\"\nsource_labels = [\"a\"]", 3, "takes regex alone"),
        ("target_label = \"a\"\nsource_labels = [\"b\",\n\"a b\"]", 4, "\"a b\" is no label name"),
        ("action = \"keepequal\"\ntarget_label = \"a\"\nregex = \"x\"", 4, "and no regex"),
        ("target_lable = \"a\"", 2, "did you mean \"target_label\"?"),
    ] {
        for section in ["metrics", "mimir", "loki"] {
            let head = match section {
                "metrics" => String::new(),
                _ => format!("[[{section}]]\nurl = \"http://h/push\"\n"),
            };
            let text = format!("{head}[[{section}.relabel]]\n{rule}\n");
            let error = parse_text(&text).unwrap_err().to_string();
            let line = head.lines().count() + place;
            assert!(error.contains(problem), "{text}: {error}");
            assert!(error.contains(&format!(":{line}:")), "{text}: {error}");
        }
    }
    let error = parse_text("[[mimir]]\nurl = \"http://h/p\"\n[mimir.relabel]\n").unwrap_err();
    assert!(error.to_string().contains("[[mimir.relabel]]"), "{error}");
}
