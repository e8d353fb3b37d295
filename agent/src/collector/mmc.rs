//! SD cards and eMMC: what they are, and how worn an eMMC says it is, from /sys/bus/mmc/devices
//! (drivers/mmc/core/sd.c, mmc.c). Not one of node_exporter's; `node_mmc_info` has the names of the kernel's
//! files as labels.
//!
//! Cards without a block device, such as SDIO's network adapters, are left out. SD cards tell no wear this
//! way. The kernel reads an eMMC's wear (EXT_CSD, from JEDEC 5.0 on) once, when it finds the card, so the
//! values move only with a new start.

use super::parse::{FirstError, Span, Texts, malformed, named, text};
use super::{CollectError, Collector};
use crate::host::{Host, Names, ReadError, Root};
use crate::model::{Desc, Samples};

const DEVICES: &str = "bus/mmc/devices";

const INFO: Desc = Desc::gauge(
    "node_mmc_info",
    "What an SD card or eMMC says it is: its CID and versions, from /sys/bus/mmc/devices.",
);
const LIFE_TIME: Desc = Desc::gauge(
    "node_mmc_life_time_ratio",
    "Share of an eMMC's life time that is used at most, in steps of 0.1; 1.1 means exceeded. Type a is \
     SLC memory, b MLC.",
);
const PRE_EOL: Desc = Desc::gauge(
    "node_mmc_pre_eol_info",
    "Reserved blocks of an eMMC: 1 normal, 2 warning (80% are used), 3 urgent (90%).",
);
const ENHANCED_SIZE: Desc = Desc::gauge(
    "node_mmc_enhanced_area_size_bytes",
    "Size of the part of an eMMC that is configured for reliability.",
);
const ENHANCED_OFFSET: Desc = Desc::gauge(
    "node_mmc_enhanced_area_offset_bytes",
    "Where the part of an eMMC begins that is configured for reliability.",
);

/// Labels of [`INFO`] beside `device`, which are names of files too.
const LABELS: [&str; 8] = ["date", "fwrev", "hwrev", "manfid", "name", "oemid", "serial", "type"];

#[derive(Default)]
struct Card {
    device: Span,
    labels: [Span; LABELS.len()],
    life_time: [Option<u64>; 2],
    pre_eol: Option<u64>,
    enhanced_size: Option<u64>,
    enhanced_offset: Option<u64>,
}

/// Identity and wear of each card.
#[derive(Default)]
pub(super) struct Mmc {
    devices: Names,
    blocks: Names,
    cards: Vec<Card>,
    texts: Texts,
}

impl Collector for Mmc {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Sys, DEVICES, &mut self.devices)?;
        self.cards.clear();
        self.texts.clear();
        for index in 0..self.devices.len() {
            let Some(device) = self.devices.get(index) else { continue };
            // What fails here is no card, or gone since the listing.
            let path = format_args!("{DEVICES}/{device}/block");
            if host.list(Root::Sys, path, &mut self.blocks).is_err() {
                continue;
            }
            if let Some(block) = self.blocks.get(0) {
                let card = read(host, device, block, &mut self.texts, &mut errors);
                self.cards.push(card);
            }
        }
        if self.cards.is_empty() {
            host.path(Root::Sys, DEVICES);
            let none: ReadError = host.error(std::io::ErrorKind::NotFound.into());
            return Err(CollectError::NoData(none));
        }
        self.write(out);
        errors.result()
    }
}

fn read(
    host: &mut Host,
    device: &str,
    block: &str,
    texts: &mut Texts,
    errors: &mut FirstError,
) -> Card {
    let mut card = Card { device: texts.keep(block), ..Card::default() };
    for (label, file) in card.labels.iter_mut().zip(LABELS) {
        let path = format_args!("{DEVICES}/{device}/{file}");
        let bytes = host.find(Root::Sys, path).unwrap_or_default();
        // Names of cheap cards hold whatever their factory left there.
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        *label = texts.keep(text(bytes.trim_ascii()).as_ref());
    }
    let path = format_args!("{DEVICES}/{device}/life_time");
    if let Some(bytes) = host.find(Root::Sys, path) {
        let mut fields = super::parse::fields(bytes);
        for estimate in &mut card.life_time {
            match fields.next().and_then(hexadecimal) {
                // Beyond these, the value is reserved; 0 is "not defined".
                Some(value) => *estimate = (1..=11).contains(&value).then_some(value),
                None => errors.note(malformed(&named(Root::Sys, path), bytes, "0x01 0x01")),
            }
        }
    }
    let path = format_args!("{DEVICES}/{device}/pre_eol_info");
    if let Some(bytes) = host.find(Root::Sys, path) {
        match hexadecimal(bytes.trim_ascii()) {
            Some(value) => card.pre_eol = (1..=3).contains(&value).then_some(value),
            None => errors.note(malformed(&named(Root::Sys, path), bytes, "0x01")),
        }
    }
    // Without such an area both hold -EINVAL, printed without its sign, the size as 32 bits.
    let error = u64::from(u32::MAX - 4096);
    let mut number = |file: &str| {
        let path = format_args!("{DEVICES}/{device}/{file}");
        super::parse::number(host, Root::Sys, path, errors)
    };
    let size = number("enhanced_area_size").filter(|size| *size > 0 && *size < error);
    let offset = number("enhanced_area_offset").filter(|offset| *offset < u64::MAX - 4096);
    if let Some((size, offset)) = size.zip(offset) {
        card.enhanced_size = size.checked_mul(1024);
        card.enhanced_offset = Some(offset);
    }
    card
}

/// A number such as `0x0b`.
fn hexadecimal(token: &[u8]) -> Option<u64> {
    let digits = token.strip_prefix(b"0x").filter(|digits| !digits.is_empty())?;
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        number.checked_mul(16)?.checked_add(u64::from(digit))
    })
}

impl Mmc {
    fn write(&self, out: &mut Samples) {
        let mut family = out.family(&INFO);
        for card in &self.cards {
            let mut labels = [("device", self.texts.get(card.device)); LABELS.len() + 1];
            for ((label, name), span) in labels.iter_mut().skip(1).zip(LABELS).zip(card.labels) {
                *label = (name, self.texts.get(span));
            }
            family.add(&labels, 1.0);
        }
        let mut family = out.family(&LIFE_TIME);
        for card in &self.cards {
            for (kind, value) in ["a", "b"].into_iter().zip(card.life_time) {
                if let Some(value) = value {
                    let labels = [("device", self.texts.get(card.device)), ("type", kind)];
                    family.add(&labels, value as f64 / 10.0);
                }
            }
        }
        let mut family = |desc: &Desc, value: fn(&Card) -> Option<u64>| {
            let mut family = out.family(desc);
            for card in &self.cards {
                if let Some(value) = value(card) {
                    family.add(&[("device", self.texts.get(card.device))], value as f64);
                }
            }
        };
        family(&PRE_EOL, |card| card.pre_eol);
        family(&ENHANCED_SIZE, |card| card.enhanced_size);
        family(&ENHANCED_OFFSET, |card| card.enhanced_offset);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::host::Roots;
    use crate::model::Sample;

    fn card(root: &Path, device: &str, block: Option<&str>, files: &[(&str, &[u8])]) {
        let folder = root.join(DEVICES).join(device);
        fs::create_dir_all(&folder).unwrap();
        if let Some(block) = block {
            fs::create_dir_all(folder.join("block").join(block)).unwrap();
        }
        files.iter().for_each(|(file, bytes)| fs::write(folder.join(file), bytes).unwrap());
    }

    fn collect(root: &Path) -> (Result<(), CollectError>, String) {
        let mut host = Host::new(Roots { sys: root.into(), ..Roots::default() });
        let mut out = Samples::with_limit(100);
        let result = Mmc::default().collect(&mut host, &mut out);
        (result, out.iter().map(|sample| show(&sample)).collect())
    }

    fn show(sample: &Sample<'_>) -> String {
        let labels: Vec<_> =
            sample.labels().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{}{{{}}} {}\n", sample.name(), labels.join(","), sample.value)
    }

    #[test]
    fn an_emmc_tells_its_wear_and_a_network_adapter_is_no_card() {
        let dir = tempfile::tempdir().unwrap();
        let files: [(&str, &[u8]); 7] = [
            ("name", b"DG4032\n"),
            ("type", b"MMC\n"),
            ("serial", b"0x2a3b4c5d\n"),
            ("life_time", b"0x03 0x0b\n"),
            ("pre_eol_info", b"0x02\n"),
            ("enhanced_area_size", b"8192\n"),
            ("enhanced_area_offset", b"4096\n"),
        ];
        card(dir.path(), "mmc1:0001", Some("mmcblk1"), &files);
        card(dir.path(), "mmc0:0001", None, &[("type", b"SDIO\n")]);
        let (result, text) = collect(dir.path());
        result.unwrap();
        assert_eq!(
            text,
            "node_mmc_info{date=,device=mmcblk1,fwrev=,hwrev=,manfid=,name=DG4032,oemid=,\
             serial=0x2a3b4c5d,type=MMC} 1\n\
             node_mmc_life_time_ratio{device=mmcblk1,type=a} 0.3\n\
             node_mmc_life_time_ratio{device=mmcblk1,type=b} 1.1\n\
             node_mmc_pre_eol_info{device=mmcblk1} 2\n\
             node_mmc_enhanced_area_size_bytes{device=mmcblk1} 8388608\n\
             node_mmc_enhanced_area_offset_bytes{device=mmcblk1} 4096\n"
        );
    }

    #[test]
    fn wear_that_is_not_defined_or_an_area_that_is_not_there_is_no_sample() {
        let dir = tempfile::tempdir().unwrap();
        let files: [(&str, &[u8]); 4] = [
            ("life_time", b"0x00 0x0c\n"),
            ("pre_eol_info", b"0x00\n"),
            ("enhanced_area_size", b"4294967274\n"),
            ("enhanced_area_offset", b"18446744073709551594\n"),
        ];
        card(dir.path(), "mmc0:0001", Some("mmcblk0"), &files);
        let (result, text) = collect(dir.path());
        result.unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn a_malformed_wear_names_its_file_and_the_rest_is_kept() {
        for (life_time, kept) in [("0x02 2", 1), ("0x02", 1), ("", 0), ("0x 0x01", 1), ("x", 0)] {
            let dir = tempfile::tempdir().unwrap();
            let files: [(&str, &[u8]); 2] =
                [("life_time", life_time.as_bytes()), ("pre_eol_info", b"0x01\n")];
            card(dir.path(), "mmc0:0001", Some("mmcblk0"), &files);
            let (result, text) = collect(dir.path());
            let error = result.unwrap_err().to_string();
            assert!(error.contains("sys/bus/mmc/devices/mmc0:0001/life_time"), "{error}");
            assert_eq!(text.matches("life_time_ratio{").count(), kept, "{life_time:?}");
            assert!(text.contains("node_mmc_pre_eol_info{device=mmcblk0} 1"));
        }
    }

    #[test]
    fn names_of_foreign_bytes_are_labels_and_no_card_is_no_data() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(collect(dir.path()).0, Err(CollectError::NoData(_))));
        card(dir.path(), "mmc0:0001", None, &[]);
        assert!(matches!(collect(dir.path()).0, Err(CollectError::NoData(_))));
        card(dir.path(), "mmc0:0001", Some("mmcblk0"), &[("name", b"S\xff\"\0x\n")]);
        let (result, text) = collect(dir.path());
        result.unwrap();
        assert!(text.contains(",name=S\u{fffd}\","), "{text}");
    }
}
