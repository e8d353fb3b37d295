//! A plain table for terminals and pages alike: what, how much, and how it was measured.

use std::fmt::Display;

/// Rows under three headings, printed as Markdown.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<[String; 3]>,
}

impl Table {
    /// An empty one.
    pub fn new() -> Table {
        Table::default()
    }

    /// Adds a number.
    pub fn row(&mut self, what: impl Display, value: impl Display, how: impl Display) {
        self.rows.push([what.to_string(), value.to_string(), how.to_string()]);
    }

    /// Prints it to standard output.
    pub fn print(&self, title: &str) {
        let heads = ["what", "value", "how it was measured"].map(str::to_owned);
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&heads]);
            cells.filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let (first, second) = (width(0), width(1));
        println!("\n## {title}\n");
        let line = |[what, value, how]: &[String; 3]| {
            println!("| {what:first$} | {value:>second$} | {how} |");
        };
        line(&heads);
        println!("|{}|{}:|---|", "-".repeat(first + 2), "-".repeat(second + 1));
        self.rows.iter().for_each(line);
    }
}

/// A number with its thousands set apart.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_set_apart() {
        let all = [0, 999, 1_000, 12_345, 1_234_567].map(super::thousands);
        assert_eq!(all, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }
}
