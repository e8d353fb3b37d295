//! The configuration reference, from the calls that read the configuration.

use std::fmt::Write;

use super::documentation;

/// The contents of docs/configuration.md.
pub fn reference() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         Mote reads TOML from the file of `--config`, else of `$MOTE_CONFIG`, else `/etc/mote/mote.toml`; \
         with none of them it runs on the defaults below. `--set KEY=VALUE` overrides a key, for example \
         `--set agent.interval=15s`. `mote check` says what is wrong with a file.\n\n\
         Durations are `\"250ms\"`, `\"30s\"`, `\"5m\"`, `\"12h\"`; sizes are `\"512KiB\"`, `\"64MiB\"`. \
         Inside strings `${NAME}` and `${NAME:-default}` expand from the environment, and `$${` is a literal \
         `${`. An unknown key is an error. Tables in double brackets may stand any number of times.\n\n\
         The defaults below are those of the board `generic`. Where `agent.board` is another one, its values are the \
         defaults: `mote boards` says which one this host is, `mote boards show NAME` what it says. What stands in \
         the file, or is set by `--set`, wins over every board.\n\n\
         This page is generated from the program; a test keeps it so.\n",
    );
    let mut table = None;
    for row in documentation() {
        if table.as_ref() != Some(&row.table) {
            // A table of an entry of a list: `[logs.stage].drop`.
            let title = match row.table.split_once("].") {
                Some((list, table)) => format!("`{table}` of `[{list}]]`"),
                None => format!("`[{}]`", row.table),
            };
            let _ = write!(out, "\n## {title}\n\n| key | type | default | |\n|---|---|---|---|\n");
            table = Some(row.table.clone());
        }
        let default =
            if row.default.is_empty() { String::new() } else { format!("`{}`", row.default) };
        let _ = writeln!(out, "| `{}` | {} | {default} | {} |", row.key, row.kind, row.text);
    }
    out
}
