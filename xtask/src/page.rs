//! Tables in README.md that commands write: each between two marks of its name. It must not know what the
//! tables say.

use crate::Result;

/// Puts a table between the marks of this name.
///
/// # Errors
/// The page has no such marks.
pub(crate) fn insert(page: &str, name: &str, table: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    let parts = page
        .split_once(&begin)
        .and_then(|(before, rest)| rest.split_once(&end).map(|(_, after)| (before, after)));
    match parts {
        Some((before, after)) => Ok(format!("{before}{begin}\n{table}\n{end}{after}")),
        None => Err(format!("README.md has no lines {begin} and {end} to put the table between")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "<!-- table:begin -->";
    const END: &str = "<!-- table:end -->";

    #[test]
    fn the_table_goes_between_the_marks_and_nothing_else_moves() {
        let text = format!("# A\n{BEGIN}\nold\n{END}\n## B\n");
        let once = insert(&text, "table", "new").expect("marks");
        assert_eq!(once, format!("# A\n{BEGIN}\nnew\n{END}\n## B\n"));
        assert_eq!(insert(&once, "table", "new").as_deref(), Ok(once.as_str()));
        assert!(insert("# A\n", "table", "new").is_err());
        assert!(insert(&format!("{END} {BEGIN}"), "table", "new").is_err());
    }
}
