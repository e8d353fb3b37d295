//! Protobuf, decoded strictly and without prost: whatever a lenient decoder would skip or mend is an
//! error here.

pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// The fields of one message, in the order in which they stand.
pub struct Fields<'a> {
    rest: &'a [u8],
    message: &'static str,
}

impl<'a> Fields<'a> {
    pub fn of(message: &'static str, bytes: &'a [u8]) -> Fields<'a> {
        Fields { rest: bytes, message }
    }

    pub fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, String> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = key >> 3;
        if field == 0 || field > 0x1fff_ffff {
            return Err(format!("{}: field number {field}", self.message));
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Value::Fixed64(u64::from_le_bytes(bytes.try_into().unwrap()))
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            other => {
                return Err(format!("{}: wire type {other} of field {field}", self.message));
            }
        };
        Ok(Some((field, value)))
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().enumerate() {
            if index == 9 && byte > 1 {
                return Err(format!("{}: a varint over 64 bits", self.message));
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                if byte == 0 && index > 0 {
                    return Err(format!("{}: a varint longer than it has to be", self.message));
                }
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(format!("{}: ends within a varint", self.message))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let left = self.rest.len() as u64;
        if length > left {
            return Err(format!("{}: {length} bytes announced, {left} left", self.message));
        }
        let (bytes, rest) = self.rest.split_at(length as usize);
        self.rest = rest;
        Ok(bytes)
    }

    pub fn unknown<T>(&self, field: u64) -> Result<T, String> {
        Err(format!("{}: field {field} is unknown or of the wrong type", self.message))
    }
}

/// A field that stands at most once.
pub fn once<T>(slot: &mut Option<T>, value: T, what: &str) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{what} stands twice")),
    }
}

pub fn text(bytes: &[u8], what: &str) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| format!("{what} is not UTF-8: {bytes:02x?}"))
}

/// A message of two strings, fields 1 and 2.
pub fn pair(message: &'static str, bytes: &[u8]) -> Result<(String, String), String> {
    let (mut name, mut value) = (None, None);
    let mut fields = Fields::of(message, bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => once(&mut name, text(bytes, "a name")?, "a name")?,
            (2, Value::Bytes(bytes)) => once(&mut value, text(bytes, "a value")?, "a value")?,
            (other, _) => return fields.unknown(other),
        }
    }
    Ok((name.unwrap_or_default(), value.unwrap_or_default()))
}

pub fn is_label_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
