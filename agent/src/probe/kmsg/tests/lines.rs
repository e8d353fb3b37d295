//! One message at a time.

use super::*;

#[track_caller]
fn says(lines: &[(&str, &str)]) {
    for (text, expected) in lines {
        let said = one(text).map(|finding| short(&finding.notice));
        assert_eq!(said.as_deref().unwrap_or_default(), *expected, "{text:?}");
    }
}

#[track_caller]
fn says_nothing(lines: &[&str]) {
    for text in lines {
        assert_eq!(one(text), None, "{text:?}");
    }
}

#[test]
fn requests_that_failed_in_the_words_of_every_kernel() {
    says(&[
        ("end_request: I/O error, dev sda, sector 9", "io_error sda unknown EIO"),
        ("end_request: critical medium error, dev sda, sector 9", "io_error sda unknown ENODATA"),
        ("blk_update_request: I/O error, dev fd0, sector 0", "io_error fd0 unknown EIO"),
        (
            "blk_update_request: critical target error, dev sdb, sector 1",
            "io_error sdb unknown EREMOTEIO",
        ),
        (
            "blk_update_request: critical nexus error, dev sdb, sector 1",
            "io_error sdb unknown EBADE",
        ),
        (
            "blk_update_request: recoverable transport error, dev sdb, sector 1",
            "io_error sdb unknown ENOLINK",
        ),
        ("print_req_error: I/O error, dev loop0, sector 0", "io_error loop0 unknown EIO"),
        (
            "print_req_error: I/O error, dev nvme0n1, sector 8 flags 80700",
            "io_error nvme0n1 unknown EIO",
        ),
        (
            "blk_update_request: I/O error, dev mmcblk0, sector 62333824 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 0",
            "io_error mmcblk0 read EIO",
        ),
        (
            "I/O error, dev sda, sector 2048 op 0x1:(WRITE) flags 0x4800 phys_seg 128 prio class 2",
            "io_error sda write EIO",
        ),
        (
            "critical space allocation error, dev loop0, sector 2048 op 0x1:(WRITE) flags 0x8800 phys_seg 16 prio class 2",
            "io_error loop0 write ENOSPC",
        ),
        (
            "timeout error, dev sdc, sector 1 op 0x3:(DISCARD) flags 0x0 phys_seg 1 prio class 0",
            "io_error sdc discard ETIMEDOUT",
        ),
        (
            "I/O error, dev sdc, sector 0 op 0x2:(FLUSH) flags 0x800 phys_seg 0 prio class 0",
            "io_error sdc flush EIO",
        ),
        (
            "I/O error, dev sdc, sector 0 op 0x9:(WRITE_ZEROES) flags 0x800 phys_seg 0 prio class 0",
            "io_error sdc write EIO",
        ),
        (
            "I/O error, dev sdc, sector 0 op 0xf:(ZONE_RESET) flags 0x800 phys_seg 0 prio class 0",
            "io_error sdc other EIO",
        ),
        (
            "device offline error, dev sdd, sector 1 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
            "io_error sdd read ENODEV",
        ),
        (
            "protection error, dev sdd, sector 1 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
            "io_error sdd read EILSEQ",
        ),
        (
            "blk_update_request: I/O error, dev cciss/c0d0, sector 1",
            "io_error cciss/c0d0 unknown EIO",
        ),
    ]);
    says_nothing(&[
        // No fault, as the tracepoints' probe has it.
        "operation not supported error, dev loop0, sector 0 op 0x9:(WRITE_ZEROES) flags 0x0 phys_seg 0 prio class 2",
        "nonblocking retry error, dev nvme0n1, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
        "I/O error, dev sda",
        "I/O error, dev sda, sector",
        " error, dev sda, sector 1",
        "my error, dev sda, sector 1",
        "x: I/O error, dev sda, sector 1",
        "a program with a long enough name to be no function of the block layer: I/O error, dev sda, sector 1",
        "blk_update_request: x callbacks suppressed",
        "net_ratelimit: 12 callbacks suppressed",
        " callbacks suppressed",
    ]);
    let finding =
        one("I/O error, dev sda, sector 18446744073709551615 op 0x0:(READ) flags").unwrap();
    let event = finding.event(7).unwrap();
    assert_eq!((event.kind, event.timestamp_ns), ("io_error", 7));
    assert_eq!(field(&event, "sector").as_deref(), Some("18446744073709551615"));
    assert_eq!(field(&event, "operation").as_deref(), Some("read"));
    assert_eq!(finding.notice.probe(), "block");
}

#[test]
fn requests_that_the_kernel_left_out_are_counted() {
    for function in ["blk_update_request", "print_req_error", "blk_print_req_error"] {
        let finding = one(&format!("{function}: 22 callbacks suppressed")).unwrap();
        assert_eq!((finding.count, finding.repeated), (22, None));
        assert_eq!(short(&finding.notice), "io_error unknown unknown unknown");
    }
}

#[test]
fn file_systems_that_are_damaged_or_lose_data() {
    says(&[
        (
            "EXT4-fs error (device sda1): ext4_find_entry:1456: inode #2: comm ls: reading directory lblock 0",
            "filesystem_error sda1 ext4 ext4",
        ),
        (
            "EXT4-fs error (device loop0): trigger_test_error:129: comm bash: test",
            "filesystem_error loop0 ext4 ext4",
        ),
        (
            "EXT4-fs warning (device sda1): ext4_end_bio:349: I/O error 10 writing to inode 13 starting block 9)",
            "filesystem_error sda1 ext4 EIO",
        ),
        (
            "EXT4-fs (mmcblk0p2): Remounting filesystem read-only",
            "filesystem_error mmcblk0p2 ext4 read_only",
        ),
        (
            "EXT4-fs (sda1): failed to convert unwritten extents to written extents -- potential data loss!  (inode 9, error -30)",
            "filesystem_error sda1 ext4 EROFS",
        ),
        ("EXT4-fs (sda1): I/O error while writing superblock", "filesystem_error sda1 ext4 EIO"),
        (
            "EXT3-fs error (device hda1): ext3_get_inode_loc: unable to read inode block",
            "filesystem_error hda1 ext3 ext3",
        ),
        (
            "EXT2-fs error (device sdb): ext2_lookup: deleted inode referenced: 9",
            "filesystem_error sdb ext2 ext2",
        ),
        (
            "EXT4-fs (sda1): Delayed block allocation failed for inode 12 at logical offset 0 with max blocks 2 with error 28",
            "filesystem_error sda1 ext4 ENOSPC",
        ),
        ("Aborting journal on device sda1-8.", "filesystem_error sda1 ext4 journal_aborted"),
        ("Aborting journal on device dm-0-8.", "filesystem_error dm-0 ext4 journal_aborted"),
        (
            "JBD2: Detected IO errors while flushing file data on sda1-8",
            "filesystem_error sda1 ext4 EIO",
        ),
        (
            "JBD2: Error -5 detected when updating journal superblock for mmcblk0p2-8.",
            "filesystem_error mmcblk0p2 ext4 EIO",
        ),
        (
            "BTRFS error (device sda1): bdev /dev/sda1 errs: wr 1, rd 0, flush 0, corrupt 0, gen 0",
            "filesystem_error sda1 btrfs btrfs",
        ),
        (
            "BTRFS error (device sda1 state EA): parent transid verify failed on 9 wanted 8 found 7",
            "filesystem_error sda1 btrfs btrfs",
        ),
        (
            "BTRFS critical (device sda1): corrupt leaf: root=5 block=9 slot=0",
            "filesystem_error sda1 btrfs btrfs",
        ),
        (
            "BTRFS: error (device sda1) in btrfs_commit_transaction:2323: errno=-5 IO failure",
            "filesystem_error sda1 btrfs btrfs",
        ),
        (
            "BTRFS: error (device sda1: state A) in cleanup_transaction:1979: errno=-5 IO failure",
            "filesystem_error sda1 btrfs btrfs",
        ),
        ("BTRFS info (device sda1): forced readonly", "filesystem_error sda1 btrfs read_only"),
        (
            "BTRFS warning (device sda1): csum failed root 5 ino 257 off 0 csum 0x1 expected csum 0x2 mirror 1",
            "filesystem_error sda1 btrfs btrfs",
        ),
        (
            "XFS (sda1): Metadata corruption detected at xfs_agf_verify+0x1/0x2 [xfs], xfs_agf block 0x1",
            "filesystem_error sda1 xfs xfs",
        ),
        (
            "XFS (sda1): Metadata CRC error detected at xfs_agi_read_verify+0xd0",
            "filesystem_error sda1 xfs xfs",
        ),
        (
            "XFS (dm-0): Corruption of in-memory data detected.  Shutting down filesystem",
            "filesystem_error dm-0 xfs xfs",
        ),
        (
            "XFS (sda1): Log I/O Error Detected. Shutting down filesystem",
            "filesystem_error sda1 xfs shutdown",
        ),
        (
            "XFS (sda1): Filesystem has been shut down due to log error (0x2).",
            "filesystem_error sda1 xfs shutdown",
        ),
        (
            "XFS (sda1): metadata I/O error in \"xfs_buf_ioend\" at daddr 0x1 len 1 error 5",
            "filesystem_error sda1 xfs xfs",
        ),
        (
            "XFS (sda1): writeback error on inode 9, offset 0, sector 1",
            "filesystem_error sda1 xfs EIO",
        ),
        ("XFS (sda1): xfs_log_force: error -5 returned.", "filesystem_error sda1 xfs xfs"),
        (
            "F2FS-fs (mmcblk0p2): inconsistent node block, nid:9, node_footer[nid:0]",
            "filesystem_error mmcblk0p2 f2fs f2fs",
        ),
        (
            "F2FS-fs (mmcblk0p2): Stopped filesystem due to reason: 3",
            "filesystem_error mmcblk0p2 f2fs shutdown",
        ),
        (
            "F2FS-fs (mmcblk0p2): invalid blkaddr: 9, type: 5",
            "filesystem_error mmcblk0p2 f2fs f2fs",
        ),
        (
            "FAT-fs (mmcblk0p1): error, invalid access to FAT (entry 0x00000009)",
            "filesystem_error mmcblk0p1 fat fat",
        ),
        (
            "FAT-fs (mmcblk0p1): Filesystem has been set read-only",
            "filesystem_error mmcblk0p1 fat read_only",
        ),
        (
            "FAT-fs (mmcblk0p1): Volume was not properly unmounted. Some data may be corrupt. Please run fsck.",
            "filesystem_error mmcblk0p1 fat unclean",
        ),
        (
            "exFAT-fs (sda1): error, invalid access to exfat cache (entry 0x9)",
            "filesystem_error sda1 exfat exfat",
        ),
        (
            "SQUASHFS error: xz decompression failed, data probably corrupt",
            "filesystem_error unknown squashfs squashfs",
        ),
        (
            "Buffer I/O error on dev sda1, logical block 256, lost async page write",
            "filesystem_error sda1 unknown EIO",
        ),
        (
            "Buffer I/O error on dev dm-0, logical block 0, lost sync page write",
            "filesystem_error dm-0 unknown EIO",
        ),
    ]);
    says_nothing(&[
        "EXT4-fs (loop1): mounted filesystem 7fa5e2d2 r/w with ordered data mode. Quota mode: none.",
        "EXT4-fs (loop1): unmounting filesystem 7fa5e2d2.",
        "EXT4-fs (sda1): This should not happen!! Data will be lost",
        "EXT4-fs warning (device sda1): ext4_clear_journal_err:4526: Marking fs in need of filesystem check.",
        "EXT4-fs (sda1): error count since last fsck: 3",
        "EXT4-fs (sda1): re-mounted. Opts: errors=remount-ro",
        "EXT4-fs error",
        "EXT4-fs error (device ",
        "EXT4-fs error (device )",
        "EXT",
        "EXTü-fs error (device sda1): x",
        "BTRFS info (device sda1): has skinny extents",
        "BTRFS warning (device sda1): the 'nospace_cache' option is deprecated",
        "BTRFS error",
        "XFS (sda1): Mounting V5 Filesystem",
        "XFS (sda1): Unmount and run xfs_repair",
        "XFS (sda1): Ending clean mount",
        "F2FS-fs (sda1): Can't find valid F2FS filesystem in 1th superblock",
        "F2FS-fs (sda1): Magic Mismatch, valid(0xf2f52010) - read(0x0)",
        "FAT-fs (sda1): utf8 is not a recommended IO charset for FAT filesystems",
        "Buffer I/O error on dev sda, logical block 0, async page read",
        "Buffer I/O error on dev sda",
        "JBD2: no valid journal superblock found",
    ]);
    let mut warning = record(1, "F2FS-fs (sda1): invalid blkaddr: 9");
    warning.level = 4;
    assert_eq!(Recognizer::new().look(&warning), None);
}

#[test]
fn cards_that_do_not_answer() {
    says(&[
        ("mmc0: error -110 whilst initialising SD card", "mmc_error mmc0 ETIMEDOUT"),
        ("mmc1: error -84 whilst initialising MMC card", "mmc_error mmc1 EILSEQ"),
        ("mmc1: error -22 whilst initialising SDIO card", "mmc_error mmc1 EINVAL"),
        (
            "mmcblk0: error -110 sending stop command, original cmd response 0x900, card status 0x400900",
            "mmc_error mmc0 ETIMEDOUT",
        ),
        (
            "mmcblk0: error -110 transferring data, sector 62333824, nr 8, cmd response 0x900, card status 0x0",
            "mmc_error mmc0 ETIMEDOUT",
        ),
        (
            "mmcblk0rpmb: timed out sending r/w cmd command, card status 0x400900",
            "mmc_error mmc0 ETIMEDOUT",
        ),
        (
            "mmcblk2boot0: response CRC error sending r/w cmd command, card status 0x900",
            "mmc_error mmc2 EILSEQ",
        ),
        (
            "mmcblk0: response CRC error sending r/w cmd command, card status 0x900",
            "mmc_error mmc0 EILSEQ",
        ),
        ("mmc0: Timeout waiting for hardware interrupt.", "mmc_error mmc0 ETIMEDOUT"),
        ("mmc0: Timeout waiting for hardware cmd interrupt.", "mmc_error mmc0 ETIMEDOUT"),
        ("mmc0: timeout waiting for hardware interrupt.", "mmc_error mmc0 ETIMEDOUT"),
        (
            "mmc-bcm2835 3f300000.mmcnr: timeout waiting for hardware interrupt.",
            "mmc_error 3f300000.mmcnr ETIMEDOUT",
        ),
        (
            "sdhost-bcm2835 20202000.mmc: timeout waiting for hardware interrupt.",
            "mmc_error 20202000.mmc ETIMEDOUT",
        ),
        ("mmc0: cache flush error -110", "mmc_error mmc0 ETIMEDOUT"),
        ("mmc0: cache flush error -5", "mmc_error mmc0 EIO"),
        ("mmc0: cqhci: timeout for tag 5, qcnt 1", "mmc_error mmc0 ETIMEDOUT"),
        ("mmc0: Card stuck being busy! __mmc_poll_for_busy", "mmc_error mmc0 busy"),
        ("mmc0: Card stuck in wrong state! mmcblk0 card_busy_detect", "mmc_error mmc0 busy"),
        ("mmc0: Reset 0x4 never completed.", "mmc_error mmc0 controller"),
        ("mmc0: Controller never released inhibit bit(s).", "mmc_error mmc0 controller"),
        ("mmc0: ADMA error: 0x02000000", "mmc_error mmc0 dma"),
        (
            "mmc0: Got data interrupt 0x00000002 even though no data operation was in progress.",
            "mmc_error mmc0 interrupt",
        ),
        ("mmc0: tuning execution failed: -5", "mmc_error mmc0 tuning"),
        ("mmc0: Card removed during transfer!", "mmc_error mmc0 ENOMEDIUM"),
        ("mmcblk0: recovery failed!", "mmc_error mmc0 recovery"),
        ("mmc0: mmc_select_hs200 failed, error -74", "mmc_error mmc0 EBADMSG"),
        ("mmc0: error -99 whilst initialising SD card", "mmc_error mmc0 99"),
    ]);
    says_nothing(&[
        "mmc0: card 0001 removed",
        "mmc0: new ultra high speed SDR104 SDXC card at address 59b4",
        "mmcblk0: mmc0:59b4 EFAQK 477 GiB ",
        "mmcblk0: p1 p2",
        "mmc0: cannot verify signal voltage switch",
        "mmc0: sdhci: ============ SDHCI REGISTER DUMP ===========",
        "mmc0: sdhci: ADMA Err:  0x00000000 | ADMA Ptr: 0x0000000000000000",
        "mmc0: sdhci: Int stat:  0x00000000 | Err stat: 0x00000000",
        "mmc0: host does not support reading read-only switch, assuming write-enable",
        "mmc",
        "mmc0",
        "mmc0:",
        "mmc: error -110",
        "mmcblk: error -110",
        "mmcblk0aaaaaaaaaaaaa: error -110",
        "mmc99999999999999999999: error -110 whilst initialising SD card",
        "mmcü0: error -110",
        "mmc0: error -x",
        "mmc0: error -7777 whilst initialising SD card",
    ]);
}

#[test]
fn heat_and_a_weak_supply() {
    says(&[
        (
            "thermal thermal_zone0: critical temperature reached(95 C),shutting down",
            "thermal_trip 0 critical",
        ),
        (
            "thermal thermal_zone4: critical temperature reached (128 C), shutting down",
            "thermal_trip 4 critical",
        ),
        (
            "thermal thermal_zone0: cpu-thermal: critical temperature reached, shutting down",
            "thermal_trip 0 critical",
        ),
        (
            "CPU0: Core temperature above threshold, cpu clock throttled (total events = 22034)",
            "thermal_trip core throttle",
        ),
        (
            "CPU3: Package temperature above threshold, cpu clock throttled (total events = 1)",
            "thermal_trip package throttle",
        ),
        (
            "mce: CPU0: Package temperature above threshold, cpu clock throttled (total events = 1)",
            "thermal_trip package throttle",
        ),
        (
            "mce: CPU1: Core temperature is above threshold, cpu clock is throttled (total events = 1)",
            "thermal_trip core throttle",
        ),
        ("CPU0: Temperature above threshold, cpu clock throttled", "thermal_trip core throttle"),
        ("Under-voltage detected! (0x00050005)", "undervoltage detected"),
        ("hwmon hwmon1: Undervoltage detected!", "undervoltage detected"),
        (
            "raspberrypi-firmware soc:firmware: Under-voltage detected! (0x00050005)",
            "undervoltage detected",
        ),
        ("Voltage normalised (0x00000000)", "undervoltage normalised"),
        ("hwmon hwmon1: Voltage normalised", "undervoltage normalised"),
    ]);
    says_nothing(&[
        "thermal thermal_zone0: failed to read out thermal zone (-61)",
        "thermal_sys: Registered thermal governor 'step_wise'",
        "thermal ",
        "thermal cpu: critical temperature reached (95 C), shutting down",
        "CPU0: Core temperature/speed normal",
        "mce: CPU0: Package temperature/speed normal",
        "CPU0: Thread 0, Processor 0",
        "CPU",
        "CPU0: My temperature above threshold, cpu clock throttled",
        "hwmon hwmon1: temp1 added",
        "usb 1-1: Undervoltage detected!",
        "my Under-voltage detected!",
    ]);
    let event = one("thermal thermal_zone4: critical temperature reached (128 C), shutting down");
    assert_eq!(field(&event.unwrap().event(0).unwrap(), "celsius").as_deref(), Some("128"));
}

#[test]
fn commands_and_links_of_scsi_and_ata() {
    says(&[
        (
            "sd 0:0:0:0: [sda] tag#0 FAILED Result: hostbyte=DID_BAD_TARGET driverbyte=DRIVER_OK cmd_age=0s",
            "scsi_error sda did_bad_target",
        ),
        (
            "sd 2:0:0:0: [sdb] tag#18 UNKNOWN(0x2003) Result: hostbyte=0x03 driverbyte=DRIVER_OK cmd_age=31s",
            "scsi_error sdb did_time_out",
        ),
        (
            "sd 2:0:0:0: [sdb] Synchronize Cache(10) failed: Result: hostbyte=DID_NO_CONNECT driverbyte=DRIVER_OK",
            "scsi_error sdb did_no_connect",
        ),
        (
            "sd 0:0:0:0: [sda] tag#0 Sense Key : Medium Error [current] ",
            "scsi_error sda medium_error",
        ),
        (
            "sd 0:0:0:0: [sda] Sense Key : Hardware Error [deferred] [descriptor] ",
            "scsi_error sda hardware_error",
        ),
        ("sd 0:0:0:0: [sda] tag#0 Sense Key : 0x3 [current] ", "scsi_error sda medium_error"),
        (
            "sd 0:0:0:0: [sda] tag#0 FAILED Result: hostbyte=0x77 driverbyte=DRIVER_OK",
            "scsi_error sda did_0x77",
        ),
        (
            "sd 0:0:0:0: [sda] tag#0 FAILED Result: hostbyte=DID_NEW driverbyte=DRIVER_OK",
            "scsi_error sda other",
        ),
        ("sd 0:0:0:0: [sda] tag#3 timing out command, waited 180s", "scsi_error sda timeout"),
        (
            "sd 6:0:0:0: [sdb] tag#1 uas_eh_abort_handler 0 uas-tag 2 inflight: IN ",
            "scsi_error sdb timeout",
        ),
        (
            "sd 0:0:0:0: Device offlined - not ready after error recovery",
            "scsi_error 0:0:0:0 offline",
        ),
        ("scsi 10:0:0:1: rejecting I/O to offline device", "scsi_error 10:0:0:1 offline"),
        (
            "ata1.00: cmd c8/00:08:00:00:00/00:00:00:00:00/e0 tag 0 dma 4096 in          res 51/40:08:00:00:00/00:00:00:00:00/e0 Emask 0x9 (media error)",
            "ata_error ata1 media",
        ),
        (
            "ata12.01: cmd 60/08:00:00:00:00/00:00:00:00:00/40 tag 0 ncq dma 4096 in          res 40/00:00:00:00:00/00:00:00:00:00/00 Emask 0x4 (timeout)",
            "ata_error ata12 timeout",
        ),
        (
            "ata1: exception Emask 0x10 SAct 0x0 SErr 0x4010000 action 0xe frozen",
            "ata_error ata1 link",
        ),
        ("ata1: hard resetting link", "ata_error ata1 reset"),
        ("ata1: COMRESET failed (errno=-16)", "ata_error ata1 reset_failed"),
        ("ata2.00: qc timeout (cmd 0xec)", "ata_error ata2 timeout"),
        ("ata1.00: disabled", "ata_error ata1 disabled"),
        ("ata1.00: disable device", "ata_error ata1 disabled"),
    ]);
    says_nothing(&[
        "sd 0:0:0:0: [sda] Attached SCSI disk",
        "sd 0:0:0:0: [sda] tag#0 Add. Sense: Unrecovered read error",
        "sd 0:0:0:0: [sda] tag#0 CDB: Read(10) 28 00 00 00 00 08 00 00 08 00",
        "sd 0:0:0:0: [sda] tag#0 FAILED Result: hostbyte=DID_OK driverbyte=DRIVER_SENSE",
        "sd 0:0:0:0: [sda] tag#0 Sense Key : Recovered Error [current] ",
        // What must not alarm: an empty drive, a new medium, a question that is answered with no.
        "sr 1:0:0:0: [sr0] tag#0 Sense Key : Not Ready [current] ",
        "sd 0:0:0:0: [sda] tag#0 Sense Key : Unit Attention [current] ",
        "sd 0:0:0:0: [sda] tag#0 Sense Key : Illegal Request [current] ",
        "sd 0:0:0:0: [sda] tag#0 Sense Key : 0x5 [current] ",
        "sd 0:0:0:0: [sda] tag#0 Sense Key : 0x13 [current] ",
        "sd 0:0:0:0: [sda] tag#0 FAILED Result: hostbyte=DID_REQUEUE driverbyte=DRIVER_OK",
        "sd 0:0:0:0: [sda] Test Unit Ready failed: Result: hostbyte=DID_NO_CONNECT driverbyte=DRIVER_OK",
        "sd 0:0:0:0: Power-on or device reset occurred",
        "scsi host6: uas_eh_device_reset_handler start",
        "sd 0:0:0: [sda] tag#0 timing out command, waited 180s",
        "sd 0:0:0:0:0: [sda] timing out command, waited 180s",
        "sd a:0:0:0: [sda] timing out command, waited 180s",
        "sd ::: : timing out command",
        "sd 0:0:0:0: [sda",
        "sd 0:0:0:0: [sda] tag#",
        "sd ",
        "ata1.00: exception Emask 0x0 SAct 0x0 SErr 0x0 action 0x0",
        "ata1.00: failed command: READ DMA",
        "ata1.00: status: { DRDY ERR }",
        "ata1.00: error: { UNC }",
        "ata1: SATA link up 6.0 Gbps (SStatus 133 SControl 300)",
        // An empty port.
        "ata3: SATA link down (SStatus 0 SControl 300)",
        "ata1.00: cmd c8/00",
        "ata",
        "ata1",
        "ata1.",
        "atax: hard resetting link",
        "ata1.00: ATA-8: WDC WD10, 01.0, max UDMA/133",
    ]);
}

#[test]
fn every_beginning_of_every_line_is_no_trouble() {
    for text in [
        "Memory cgroup out of memory: Killed process 9 (ü) total-vm:8kB, anon-rss:8kB, UID:0 pgtables:4kB",
        "oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/a,task_memcg=/ü,task=x,pid=9,uid=0",
        "Task in /ü killed as a result of limit of /",
        "I/O error, dev ü, sector 1 op 0x0:(READ) flags 0x0",
        "sd 0:0:0:0: [ü] tag#0 FAILED Result: hostbyte=DID_ERROR",
        "ata1.00: cmd c8/00 Emask 0x9 (media error)",
        "mmcblk0: error -110 sending stop command",
        "EXT4-fs error (device ü): x",
        "XFS (ü): Metadata corruption detected",
        "thermal ü: critical temperature reached (95 C)",
        "CPU0: Core temperature above threshold, cpu clock throttled",
        "hwmon ü: Undervoltage detected!",
        "blk_update_request: 1 callbacks suppressed",
    ] {
        let mut recognizer = Recognizer::new();
        for (at, _) in text.char_indices() {
            for part in [&text[..at], &text[at..]] {
                if let Some(finding) = recognizer.look(&record(1, part)) {
                    let _ = finding.notice.event(1).line();
                }
            }
        }
    }
}
