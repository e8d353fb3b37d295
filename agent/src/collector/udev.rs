//! udev's database of a device, `/run/udev/data/b<major>:<minor>`: lines of which `E:NAME=value` is a
//! property. Only the properties that `diskstats` wants are kept.

use super::parse::{Span, Texts, lines, text};

/// The properties, as indices into what [`parse`] gives.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum Property {
    Path,
    Wwn,
    Model,
    SerialShort,
    Revision,
    FsType,
    FsUsage,
    FsUuid,
    FsVersion,
    DmName,
    DmUuid,
    DmVgName,
    DmLvName,
    DmLvLayer,
    Ata,
    AtaWriteCache,
    AtaWriteCacheEnabled,
    AtaRotationRate,
}

/// How many properties there are.
pub(super) const PROPERTIES: usize = NAMES.len();

/// In the order of [`Property`].
const NAMES: [&str; 18] = [
    "ID_PATH",
    "ID_WWN",
    "ID_MODEL",
    "ID_SERIAL_SHORT",
    "ID_REVISION",
    "ID_FS_TYPE",
    "ID_FS_USAGE",
    "ID_FS_UUID",
    "ID_FS_VERSION",
    "DM_NAME",
    "DM_UUID",
    "DM_VG_NAME",
    "DM_LV_NAME",
    "DM_LV_LAYER",
    "ID_ATA",
    "ID_ATA_WRITE_CACHE",
    "ID_ATA_WRITE_CACHE_ENABLED",
    "ID_ATA_ROTATION_RATE_RPM",
];

/// The properties of a device; empty where it has none. Of two lines for one property the last counts.
pub(super) fn parse(bytes: &[u8], texts: &mut Texts) -> [Span; PROPERTIES] {
    let mut properties = [Span::default(); PROPERTIES];
    for line in lines(bytes) {
        let Some(property) = line.strip_prefix(b"E:") else { continue };
        let Some(equals) = property.iter().position(|&byte| byte == b'=') else { continue };
        let (name, value) = property.split_at(equals);
        let slot = NAMES.iter().zip(&mut properties).find(|(known, _)| known.as_bytes() == name);
        if let Some((_, slot)) = slot {
            *slot = texts.keep(&text(value.strip_prefix(b"=").unwrap_or(value)));
        }
    }
    properties
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_stand_where_their_index_says() {
        let mut texts = Texts::default();
        let bytes = b"S:disk/by-id/x\nE:ID_PATH=p=q\nE:ID_ATA_ROTATION_RATE_RPM=7200\nE:ID_ATA\n\
            E:ID_MODEL=old\nE:ID_MODEL=\xff\nE:=\nE:";
        let properties = parse(bytes, &mut texts);
        let get = |property: Property| texts.get(properties[property as usize]);
        assert_eq!(get(Property::Path), "p=q");
        assert_eq!(get(Property::AtaRotationRate), "7200");
        assert_eq!(get(Property::Model), "\u{fffd}");
        assert_eq!(get(Property::Ata), "");
        assert_eq!(Property::AtaRotationRate as usize, PROPERTIES - 1);
        assert_eq!(get(Property::SerialShort), "");
    }
}
