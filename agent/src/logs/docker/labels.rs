//! The labels of a container's streams. `container`, not the metrics' `name`, is what users of Alloy and
//! Promtail call it; `image` and Compose's are those of the metrics under shorter names.

use super::frames::Output;
use super::options::Options;
use super::said::Container;
use crate::logs::SOURCE;
use crate::model::Labels;

/// The internal label with the whole id, which stages may match on.
pub const ID: &str = "__container_id__";

/// The labels of a container's streams but `stream`.
pub(super) fn labels(options: &Options, container: &Container) -> Labels {
    let mut labels = options.labels.clone();
    labels.set(SOURCE, super::NAME);
    labels.set(ID, container.id.as_str());
    labels.set("container", container.name.as_str());
    if !container.image.is_empty() {
        labels.set("image", container.image.as_str());
    }
    for (name, key) in &options.labels_from {
        if let Some(value) = container.label(key).filter(|value| !value.is_empty()) {
            labels.set(name, value);
        }
    }
    labels
}

/// The same with the label of one output.
pub(super) fn of_output(labels: &Labels, output: Output) -> Labels {
    let mut labels = labels.clone();
    labels.set("stream", if output == Output::Stderr { "stderr" } else { "stdout" });
    labels
}
