//! The series of a segment as a reader has them: the text of the schemas, and for each series where in it
//! its labels stand. It must not know values or records.

use super::super::bytes::DecodeError;
use super::schema::{END, Walk};
use crate::model::Kind;

/// The most series that a table may have; a record that makes them more is damaged.
pub(super) const MAX_SERIES: usize = 1 << 16;
/// The most text; as above.
pub(super) const MAX_TEXT: usize = 64 << 20;

/// Where a series' labels stand in the text. Offsets fit: [`MAX_TEXT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    group: u32,
    values: u32,
}

/// The series of a segment, each by its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The external labels, then groups.
    text: Vec<u8>,
    places: Vec<Place>,
}

/// A series of a table.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// Its family's type.
    pub kind: Kind,
    text: &'a [u8],
    /// Where its name stands, and where its values do.
    group: usize,
    values: usize,
}

impl Table {
    /// How many series there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// A series by its number.
    pub fn get(&self, series: usize) -> Option<Series<'_>> {
        let Place { group, values } = *self.places.get(series)?;
        let (group, values) = (group as usize, values as usize);
        let kind = Kind::from_u8(*self.text.get(group)?)?;
        Some(Series { kind, text: &self.text, group, values })
    }

    /// All of them in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = Series<'_>> + Clone {
        (0..self.len()).filter_map(|series| self.get(series))
    }

    /// Makes a table of a schema, which has external labels if it is a full record's. It is to be added to
    /// a table with `onto` series that stay and `text` bytes of text, and must not make that too large.
    pub(super) fn parse(
        raw: Vec<u8>,
        external: bool,
        onto: usize,
        text: usize,
    ) -> Result<Table, DecodeError> {
        let plausible = |good: bool| {
            let error = DecodeError { expected: "a plausible number of series", offset: 0 };
            good.then_some(()).ok_or(error)
        };
        plausible(raw.len() <= MAX_TEXT.saturating_sub(text))?;
        let mut places = Vec::new();
        let mut walk = Walk::new(&raw, 0);
        if external {
            walk.check_external()?;
        }
        while !walk.is_at_end() {
            let group = walk.offset() as u32;
            walk.check_group(|values| places.push(Place { group, values: values as u32 }))?;
            plausible(places.len() <= MAX_SERIES.saturating_sub(onto))?;
        }
        Ok(Table { text: raw, places })
    }

    /// Adds the series of another one, which has no external labels.
    pub(super) fn append(&mut self, other: &Table) {
        let shift = self.text.len() as u32;
        self.text.extend_from_slice(&other.text);
        self.places.extend(
            other
                .places
                .iter()
                .map(|place| Place { group: place.group + shift, values: place.values + shift }),
        );
    }

    /// Whether the table can be cut off there: no group goes on beyond it.
    pub(super) fn has_edge(&self, series: usize) -> bool {
        let group = |series: usize| self.places.get(series).map(|place| place.group);
        match series.checked_sub(1) {
            None => true,
            Some(before) => group(before) != group(series),
        }
    }

    /// Forgets the series from this one on, at an [edge](Table::has_edge).
    pub(super) fn truncate(&mut self, series: usize) {
        if let Some(place) = self.places.get(series) {
            self.text.truncate(place.group as usize);
            self.places.truncate(series);
        }
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    pub(super) fn memory(&self) -> usize {
        self.text.capacity() + self.places.capacity() * size_of::<Place>()
    }

    /// Calls `piece` with the bytes by which tables are told apart: the external labels, and those of
    /// each series up to this one.
    pub(super) fn identity(&self, series: usize, mut piece: impl FnMut(&[u8])) {
        let mut walk = Walk::new(&self.text, 0);
        let count = walk.byte().unwrap_or(0);
        (0..2 * usize::from(count)).for_each(|_| walk.skip(1));
        piece(self.text.get(..walk.offset()).unwrap_or_default());
        for series in self.iter().take(series) {
            let mut own = series.own();
            piece(&[series.kind as u8]);
            piece(own.name.unwrap_or_default().as_bytes());
            while let Some((name, value)) = own.label() {
                piece(&[END]);
                piece(name.as_bytes());
                piece(&[END]);
                piece(value.as_bytes());
            }
        }
    }
}

impl<'a> Series<'a> {
    /// Its name, with the suffix of a histogram's series.
    pub fn name(&self) -> &'a str {
        self.own().name.unwrap_or_default()
    }

    /// The labels that it has beside its name and those of every series.
    pub fn own_labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut own = self.own();
        std::iter::from_fn(move || own.label())
    }

    /// Its labels in the order of their names, `__name__` among them.
    pub fn labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        let mut external = Walk::new(self.text, 0);
        let left = external.byte().unwrap_or(0);
        let mut labels = Labels { external, left, next: None, own: self.own(), mine: None };
        labels.next = labels.external();
        labels.mine = labels.own.next();
        labels
    }

    fn own(&self) -> Own<'a> {
        // Checked when the record was decoded; ends at the first thing that is no text.
        let mut names = Walk::new(self.text, self.group + 1);
        let left = names.byte().unwrap_or(0);
        names.byte();
        let name = names.part();
        Own { name, names, values: Walk::new(self.text, self.values), left, ahead: None }
    }
}

impl PartialEq for Series<'_> {
    fn eq(&self, other: &Series<'_>) -> bool {
        self.kind == other.kind && self.labels().eq(other.labels())
    }
}

/// A series' own labels.
#[derive(Clone, Debug)]
struct Own<'a> {
    /// Its name, until it has been given.
    name: Option<&'a str>,
    names: Walk<'a>,
    values: Walk<'a>,
    left: u8,
    /// A label that comes after the name.
    ahead: Option<(&'a str, &'a str)>,
}

impl<'a> Own<'a> {
    fn label(&mut self) -> Option<(&'a str, &'a str)> {
        self.left = self.left.checked_sub(1)?;
        Some((self.names.part()?, self.values.part()?))
    }

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        if let Some(label) = self.ahead.take() {
            return Some(label);
        }
        let label = self.label();
        if self.name.is_some() && label.is_none_or(|(name, _)| name > "__name__") {
            self.ahead = label;
            return Some(("__name__", self.name.take()?));
        }
        label
    }
}

/// A series' own labels and the external ones, of which its own win.
#[derive(Clone, Debug)]
struct Labels<'a> {
    external: Walk<'a>,
    left: u8,
    /// The next external one, and the next of its own.
    next: Option<(&'a str, &'a str)>,
    own: Own<'a>,
    mine: Option<(&'a str, &'a str)>,
}

impl<'a> Labels<'a> {
    fn external(&mut self) -> Option<(&'a str, &'a str)> {
        self.left = self.left.checked_sub(1)?;
        Some((self.external.part()?, self.external.part()?))
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let order = match (self.mine, self.next) {
            (Some((mine, _)), Some((next, _))) => mine.cmp(next),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, _) => std::cmp::Ordering::Greater,
        };
        let label = if order.is_le() { self.mine } else { self.next };
        if order.is_ge() {
            self.next = self.external();
        }
        if order.is_le() {
            self.mine = self.own.next();
        }
        label
    }
}
