//! Messages of D-Bus for the tests' own services (D-Bus Specification 0.43, "Message Protocol"): written
//! from values, and read strictly, by nothing that the agent uses. What a lenient reader would pass over
//! is an error here.

/// A value and, by what it is, its type.
#[derive(Clone, Debug)]
pub enum Value {
    Bool(bool),
    U32(u32),
    I32(i32),
    U64(u64),
    Text(String),
    Path(String),
    Struct(Vec<Value>),
    /// The type of the elements, and they.
    Array(&'static str, Vec<Value>),
    Variant(Box<Value>),
}

pub fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub fn path(path: &str) -> Value {
    Value::Path(path.to_owned())
}

impl Value {
    fn signature(&self) -> String {
        match self {
            Value::Bool(_) => "b".into(),
            Value::U32(_) => "u".into(),
            Value::I32(_) => "i".into(),
            Value::U64(_) => "t".into(),
            Value::Text(_) => "s".into(),
            Value::Path(_) => "o".into(),
            Value::Struct(values) => {
                format!("({})", values.iter().map(Value::signature).collect::<String>())
            }
            Value::Array(of, _) => format!("a{of}"),
            Value::Variant(_) => "v".into(),
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Value::Bool(value) => put_u32(out, u32::from(*value)),
            Value::U32(value) => put_u32(out, *value),
            Value::I32(value) => put_u32(out, value.cast_unsigned()),
            Value::U64(value) => {
                pad(out, 8);
                out.extend(value.to_le_bytes());
            }
            Value::Text(text) | Value::Path(text) => {
                put_u32(out, u32::try_from(text.len()).unwrap());
                out.extend(text.as_bytes());
                out.push(0);
            }
            Value::Struct(values) => {
                pad(out, 8);
                values.iter().for_each(|value| value.put(out));
            }
            Value::Array(of, values) => {
                put_u32(out, 0);
                let length = out.len() - 4;
                pad(out, if of.starts_with(['(', 't']) { 8 } else { 4 });
                let start = out.len();
                for value in values {
                    assert_eq!(value.signature(), *of);
                    value.put(out);
                }
                let bytes = u32::try_from(out.len() - start).unwrap().to_le_bytes();
                out[length..length + 4].copy_from_slice(&bytes);
            }
            Value::Variant(value) => {
                put_signature(out, &value.signature());
                value.put(out);
            }
        }
    }
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    pad(out, 4);
    out.extend(value.to_le_bytes());
}

fn put_signature(out: &mut Vec<u8>, signature: &str) {
    out.push(u8::try_from(signature.len()).unwrap());
    out.extend(signature.as_bytes());
    out.push(0);
}

pub const CALL: u8 = 1;
pub const RETURN: u8 = 2;
pub const ERROR: u8 = 3;

/// A message; what it has not is empty or zero.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub kind: u8,
    pub flags: u8,
    pub serial: u32,
    pub path: String,
    pub interface: String,
    pub member: String,
    pub error: String,
    pub reply_serial: u32,
    pub destination: String,
    pub sender: String,
    pub signature: String,
    /// Strings of the body, if it has nothing else.
    pub arguments: Vec<String>,
}

impl Message {
    /// Its bytes, with a body of these values.
    pub fn bytes(&self, body: &[Value]) -> Vec<u8> {
        let mut fields = Vec::new();
        let texts = [
            (1, 'o', &self.path),
            (2, 's', &self.interface),
            (3, 's', &self.member),
            (4, 's', &self.error),
            (6, 's', &self.destination),
        ];
        for (code, kind, text) in texts.into_iter().filter(|field| !field.2.is_empty()) {
            pad(&mut fields, 8);
            fields.push(code);
            put_signature(&mut fields, &kind.to_string());
            Value::Text(text.clone()).put(&mut fields);
        }
        if self.reply_serial != 0 {
            pad(&mut fields, 8);
            fields.push(5);
            put_signature(&mut fields, "u");
            put_u32(&mut fields, self.reply_serial);
        }
        let signature: String = body.iter().map(Value::signature).collect();
        if !signature.is_empty() {
            pad(&mut fields, 8);
            fields.push(8);
            put_signature(&mut fields, "g");
            put_signature(&mut fields, &signature);
        }
        let mut contents = Vec::new();
        body.iter().for_each(|value| value.put(&mut contents));
        let mut out = vec![b'l', self.kind, self.flags, 1];
        put_u32(&mut out, u32::try_from(contents.len()).unwrap());
        put_u32(&mut out, self.serial);
        put_u32(&mut out, u32::try_from(fields.len()).unwrap());
        out.extend(fields);
        pad(&mut out, 8);
        out.extend(contents);
        out
    }

    /// The answer to it: values, or the name of an error.
    pub fn answer(&self, serial: u32, answer: Result<&[Value], &str>) -> Vec<u8> {
        let mut message = Message {
            kind: RETURN,
            flags: 1,
            serial,
            reply_serial: self.serial,
            destination: self.sender.clone(),
            ..Message::default()
        };
        match answer {
            Ok(values) => message.bytes(values),
            Err(name) => {
                message.kind = ERROR;
                message.error = name.to_owned();
                message.bytes(&[text("why")])
            }
        }
    }

    /// The length of a whole message by its first 16 bytes.
    pub fn length(start: [u8; 16]) -> Result<usize, String> {
        if start[0] != b'l' || start[3] != 1 {
            return Err(format!("byte order {} and version {}", start[0], start[3]));
        }
        let number = |at: usize| u32::from_le_bytes(start[at..at + 4].try_into().unwrap()) as usize;
        let (body, fields) = (number(4), number(12));
        if body > 1 << 20 || fields > 1 << 16 {
            return Err(format!("a body of {body} and fields of {fields} bytes"));
        }
        Ok(16 + fields.next_multiple_of(8) + body)
    }

    /// Reads a whole message.
    pub fn read(bytes: &[u8]) -> Result<Message, String> {
        if Message::length(bytes[..16].try_into().unwrap())? != bytes.len() {
            return Err("another length than it says".into());
        }
        let mut message = Message { kind: bytes[1], flags: bytes[2], ..Message::default() };
        if !(1..=4).contains(&message.kind) || message.flags & !7 != 0 {
            return Err(format!("type {} and flags {}", message.kind, message.flags));
        }
        let mut reader = Reader { bytes, at: 4 };
        let body = reader.u32()? as usize;
        message.serial = reader.u32()?;
        let end = 16 + reader.u32()? as usize;
        let mut seen = Vec::new();
        while reader.at < end {
            reader.align(8)?;
            let code = reader.byte()?;
            if seen.contains(&code) {
                return Err(format!("field {code} twice"));
            }
            seen.push(code);
            let kind = reader.signature()?;
            match (code, kind.as_str()) {
                (1, "o") => message.path = reader.path()?,
                (2, "s") => message.interface = reader.dotted()?,
                (3, "s") => message.member = reader.name()?,
                (4, "s") => message.error = reader.dotted()?,
                (5, "u") => message.reply_serial = reader.u32()?,
                (6, "s") => message.destination = reader.string()?,
                (7, "s") => message.sender = reader.string()?,
                (8, "g") => message.signature = reader.signature()?,
                other => return Err(format!("a header field {other:?}")),
            }
        }
        if reader.at != end {
            return Err("fields go beyond their end".into());
        }
        reader.align(8)?;
        let needs: &[u8] = match message.kind {
            CALL => &[1, 3],
            RETURN => &[5],
            ERROR => &[4, 5],
            _ => &[1, 2, 3],
        };
        if message.serial == 0 || needs.iter().any(|code| !seen.contains(code)) {
            return Err(format!("serial {}, and only the fields {seen:?}", message.serial));
        }
        if message.signature.is_empty() != (body == 0) {
            return Err(format!("{body} bytes of {:?}", message.signature));
        }
        if message.signature.bytes().all(|kind| kind == b's') {
            for _ in 0..message.signature.len() {
                message.arguments.push(reader.string()?);
            }
            if reader.at != bytes.len() {
                return Err("more than its signature says".into());
            }
        }
        Ok(message)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let taken = self.bytes.get(self.at..self.at + count).ok_or("the message ends too early")?;
        self.at += count;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), String> {
        while !self.at.is_multiple_of(to) {
            if self.byte()? != 0 {
                return Err(format!("padding at {} that is not zero", self.at));
            }
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.align(4)?;
        Ok(u32::from_le_bytes(self.take(4)?.try_into().unwrap()))
    }

    fn text(&mut self, length: usize) -> Result<String, String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).map_err(|e| e.to_string())?;
        if self.byte()? != 0 || text.contains('\0') {
            return Err(format!("{text:?} has a NUL, or none at its end"));
        }
        Ok(text)
    }

    fn string(&mut self) -> Result<String, String> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    fn signature(&mut self) -> Result<String, String> {
        let length = self.byte()?;
        self.text(usize::from(length))
    }

    fn name(&mut self) -> Result<String, String> {
        let name = self.string()?;
        if is_name(&name) { Ok(name) } else { Err(format!("{name:?} as a member")) }
    }

    fn dotted(&mut self) -> Result<String, String> {
        let name = self.string()?;
        if name.contains('.') && name.len() < 256 && name.split('.').all(is_name) {
            return Ok(name);
        }
        Err(format!("{name:?} as an interface"))
    }

    fn path(&mut self) -> Result<String, String> {
        let path = self.string()?;
        let element = |element: &str| {
            !element.is_empty() && element.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let rest = path.strip_prefix('/').ok_or_else(|| format!("{path:?} as a path"))?;
        if !rest.is_empty() && !rest.split('/').all(element) {
            return Err(format!("{path:?} as a path"));
        }
        Ok(path)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() < 256
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
