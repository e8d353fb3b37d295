//! What belongs together, and who is believed.

use super::*;

fn counts(findings: &[Finding]) -> (u64, Vec<u64>) {
    let count = findings.iter().map(|finding| finding.count).sum();
    (count, findings.iter().filter_map(|finding| finding.repeated).collect())
}

#[test]
fn what_user_space_writes_is_not_believed() {
    let text = "Out of memory: Killed process 1 (a) total-vm:1kB, anon-rss:1kB, file-rss:0kB";
    assert!(one(text).is_some());
    for facility in [1, 3, 127] {
        let forged = Record { facility, ..record(1, text) };
        assert_eq!(Recognizer::new().look(&forged), None);
    }
}

#[test]
fn names_of_processes_are_no_messages() {
    for name in [
        "mmc0: error -11",
        "mmc0: error -5 ",
        "ata1: disabled",
        "Killed process ",
        "XFS (a): Corrup",
    ] {
        for rest in [
            "[12]: segfault at 0 ip 0 sp 0 error 4",
            " invoked oom-killer: gfp_mask=0x1",
            ": page allocation failure: order:4",
            " (12) used greatest stack depth: 9 bytes left",
        ] {
            assert_eq!(one(&format!("{name}{rest}")), None, "{name:?}{rest:?}");
        }
    }
}

#[test]
fn a_failing_disk_makes_one_event_a_minute_and_every_count() {
    let mut recognizer = Recognizer::new();
    let mut findings = Vec::new();
    // Ten a second for two and a half minutes.
    for tenth in 0..1_500u64 {
        let text = format!("I/O error, dev sda, sector {tenth} op 0x0:(READ) flags 0x0 phys_seg 1");
        findings.extend(recognizer.look(&record(tenth * 100_000, &text)));
    }
    assert_eq!(counts(&findings), (1_500, vec![0, 599, 599]));
    let event = findings[600].event(0).unwrap();
    assert_eq!(field(&event, "repeated").as_deref(), Some("599"));
    assert_eq!(field(&findings[0].event(0).unwrap(), "repeated"), None);
}

#[test]
fn another_device_operation_or_error_is_another_event() {
    let findings = all(&[
        "I/O error, dev sda, sector 1 op 0x0:(READ) flags 0x0",
        "I/O error, dev sda, sector 2 op 0x1:(WRITE) flags 0x0",
        "I/O error, dev sdb, sector 3 op 0x0:(READ) flags 0x0",
        "critical medium error, dev sda, sector 4 op 0x0:(READ) flags 0x0",
        "critical medium error, dev sda, sector 5 op 0x0:(READ) flags 0x0",
    ]);
    assert_eq!(counts(&findings), (5, vec![0; 4]));
}

#[test]
fn every_victim_is_an_event() {
    let mut recognizer = Recognizer::new();
    for pid in 0..1_000 {
        let text = format!("Out of memory: Killed process {pid} (a) total-vm:1kB, anon-rss:1kB");
        assert_eq!(recognizer.look(&record(pid, &text)).unwrap().repeated, Some(0));
    }
}

#[test]
fn more_incidents_than_are_remembered_cost_no_count() {
    let mut recognizer = Recognizer::new();
    let mut findings = Vec::new();
    for round in 0..3u64 {
        for disk in 0..200 {
            let text = format!("I/O error, dev d{disk}, sector 1 op 0x0:(READ) flags 0x0");
            findings.extend(recognizer.look(&record(round * 1_000 + disk, &text)));
        }
    }
    assert_eq!(counts(&findings).0, 600);
    assert!(format!("{recognizer:?}").len() < 16 << 10);
}

#[test]
fn the_four_lines_of_a_scsi_command_are_one_notice() {
    let command = |driver| {
        [
            format!("sd 0:0:0:0: [sda] tag#0 FAILED Result: hostbyte=DID_OK driverbyte={driver}"),
            "sd 0:0:0:0: [sda] tag#0 Sense Key : Medium Error [current] ".to_owned(),
            "sd 0:0:0:0: [sda] tag#0 Add. Sense: Unrecovered read error".to_owned(),
            "sd 0:0:0:0: [sda] tag#0 CDB: Read(10) 28 00 00 00 00 08 00 00 08 00".to_owned(),
        ]
    };
    for driver in ["DRIVER_SENSE", "DRIVER_OK cmd_age=0s"] {
        let lines = command(driver);
        let findings = all(&lines.each_ref().map(String::as_str));
        assert_eq!(findings.len(), 1);
        assert_eq!(short(&findings[0].notice), "scsi_error sda medium_error");
    }
    // The host's code says it, and the sense key adds nothing.
    let mut lines = command("DRIVER_OK");
    lines[0] = lines[0].replace("DID_OK", "DID_TIME_OUT");
    let findings = all(&lines.each_ref().map(String::as_str));
    assert_eq!(
        findings.iter().map(|f| short(&f.notice)).collect::<Vec<_>>(),
        ["scsi_error sda did_time_out"]
    );
    // Nobody says it.
    let lines = command("DRIVER_OK");
    assert_eq!(all(&[&lines[0], &lines[3]]), []);
    // Another command's key is its own, also behind a code that has told of the first.
    let timed_out = lines[0].replace("DID_OK", "DID_TIME_OUT");
    let other = "sd 0:0:0:0: [sda] tag#1 Sense Key : Medium Error [current] ";
    assert_eq!(all(&[&timed_out, other]).len(), 2);
    // An aborted command has a CDB too.
    let aborted = "sd 6:0:0:0: [sdb] tag#1 uas_eh_abort_handler 0 uas-tag 2 inflight: CMD OUT";
    let cdb = "sd 6:0:0:0: [sdb] tag#1 CDB: opcode=0x28 28 00 02 d0 30 08 00 02 00 00";
    assert_eq!(all(&[aborted, cdb]).len(), 1);
}

/// What libata says of one unreadable sector, and then of the link.
const ATA: [&str; 10] = [
    "ata1.00: exception Emask 0x0 SAct 0x0 SErr 0x0 action 0x0",
    "ata1.00: irq_stat 0x40000001",
    "ata1.00: failed command: READ DMA",
    "ata1.00: cmd c8/00:08:00:00:00/00:00:00:00:00/e0 tag 0 dma 4096 in          res 51/40:08:00:00:00/00:00:00:00:00/e0 Emask 0x9 (media error)",
    "ata1.00: status: { DRDY ERR }",
    "ata1.00: error: { UNC }",
    "ata1: hard resetting link",
    "ata1: SATA link up 6.0 Gbps (SStatus 133 SControl 300)",
    "ata1.00: configured for UDMA/133",
    "ata1: EH complete",
];

#[test]
fn an_ata_failure_with_its_repair_is_one_event() {
    let findings = all(&ATA);
    let said: Vec<_> = findings.iter().map(|f| (short(&f.notice), f.repeated)).collect();
    assert_eq!(
        said,
        [("ata_error ata1 media".into(), Some(0)), ("ata_error ata1 reset".into(), None)]
    );
}

#[test]
fn a_disk_that_is_gone_is_an_event_and_an_empty_port_is_none() {
    let down = "ata1: SATA link down (SStatus 0 SControl 300)";
    let mut texts = ATA.to_vec();
    texts.extend([down, "ata1.00: disabled", "ata2: SATA link down (SStatus 0 SControl 300)"]);
    let events: Vec<_> =
        all(&texts).iter().filter(|f| f.repeated.is_some()).map(|f| short(&f.notice)).collect();
    assert_eq!(
        events,
        ["ata_error ata1 media", "ata_error ata1 link_down", "ata_error ata1 disabled"]
    );
    let mut recognizer = Recognizer::new();
    recognizer.look(&record(0, "ata1: hard resetting link"));
    assert_eq!(recognizer.look(&record(61_000_000, down)), None, "a minute later it was unplugged");
}

#[test]
fn a_clock_that_goes_back_is_no_trouble() {
    let mut recognizer = Recognizer::new();
    for usec in [u64::MAX, 0, 5, u64::MAX] {
        assert!(recognizer.look(&record(usec, "ata1: hard resetting link")).is_some());
    }
}

/// How much a message costs that nothing wants, which is nearly every one. Run alone, with
/// optimisations: `cargo test --release -p agent --lib -- --ignored --nocapture cost_of`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_message_that_nobody_wants() {
    let texts = [
        "wlan0: associated",
        "usb 1-1.2: new high-speed USB device number 5 using xhci_hcd",
        "audit: type=1400 audit(1700000000.000:42): apparmor=\"DENIED\" operation=\"open\"",
        "EXT4-fs (loop1): mounted filesystem 7fa5e2d2 r/w with ordered data mode. Quota mode: none.",
        "[UFW BLOCK] IN=eth0 OUT= MAC=00:00 SRC=10.0.0.1 DST=10.0.0.2 LEN=60 TOS=0x00 PREC=0x00",
        "mmc0: new ultra high speed SDR104 SDXC card at address 59b4",
    ];
    let mut recognizer = Recognizer::new();
    for text in texts {
        let began = std::time::Instant::now();
        for usec in 0..1_000_000 {
            let record = std::hint::black_box(record(usec, text));
            assert_eq!(recognizer.look(&record), None);
        }
        println!("{:>6.1} ns  {text}", began.elapsed().as_nanos() as f64 / 1e6);
    }
}
