//! What all series and streams of the agent are called, and what makes rounds of samples: the labels of the
//! configuration, `[[metrics.relabel]]`, the encoder that a reload goes on with.

use std::cell::RefCell;
use std::rc::Rc;

use crate::config::Config;
use crate::encode::RoundEncoder;
use crate::model::{Labels, Shape};
use crate::relabel::Shaper;

/// The labels of the agent's own streams.
pub(super) fn agent_labels(config: &Config) -> Labels {
    let mut labels = config.agent.labels.clone();
    labels.set_default("instance", config.agent.instance.clone());
    labels
}

/// The encoder that knows which series were there, or a new one if labels that all have are others now: the
/// old series then go as those of a host that is switched off.
pub(super) fn encoder_of(
    config: &Config,
    kept: &mut Option<Rc<RefCell<RoundEncoder>>>,
) -> Rc<RefCell<RoundEncoder>> {
    let labels = series_labels(config);
    match kept.as_ref().filter(|kept| *kept.borrow().external() == labels) {
        Some(kept) => {
            // Its last record may not have been written, and its segment is closed.
            kept.borrow_mut().forget();
            Rc::clone(kept)
        }
        None => Rc::clone(kept.insert(Rc::new(RefCell::new(RoundEncoder::new(labels))))),
    }
}

/// The labels that every series gets, unless rules may take one from some of them.
fn series_labels(config: &Config) -> Labels {
    let mut labels = agent_labels(config);
    labels.set_default("job", config.metrics.job.clone());
    if config.metrics.relabel.is_empty() {
        return labels;
    }
    Shaper::new(config.metrics.relabel.clone(), labels).for_all().clone()
}

/// The rules of `[[metrics.relabel]]`, if there are any.
pub(super) fn shaper(config: &Config) -> Option<Rc<RefCell<Shaper>>> {
    let rules = config.metrics.relabel.clone();
    let mut labels = agent_labels(config);
    labels.set_default("job", config.metrics.job.clone());
    (!rules.is_empty()).then(|| Rc::new(RefCell::new(Shaper::new(rules, labels))))
}

pub(super) fn shape_of(shaper: &Option<Rc<RefCell<Shaper>>>) -> Option<Box<dyn Shape>> {
    shaper.as_ref().map(|shaper| Box::new(Rc::clone(shaper)) as Box<dyn Shape>)
}
