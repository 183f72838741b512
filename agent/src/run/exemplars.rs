//! Which finished spans become exemplars of request histograms, and when: a trace that nobody can look at is none.
//!
//! Where every trace is kept, as soon as a span is finished; where traces are chosen from for export, once its trace is kept.
//! What of it is still in the store of spans is asked when a page is made (`Table::exemplars`).

use crate::config::Config;
use crate::metrics::record_exemplar;
use crate::model::span::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Nothing,
    Finished,
    /// By whoever chooses: the span keeps what is needed for it.
    Kept,
}

impl Choice {
    pub fn of(config: &Config) -> Self {
        match (config.metrics.exemplars, config.export.is_wanted() && config.sampling.share < 1.0) {
            (false, _) => Self::Nothing,
            (true, false) => Self::Finished,
            (true, true) => Self::Kept,
        }
    }

    /// Looks at a finished span, whose number in the store is going to be `place`.
    pub fn finished(self, span: &mut Span, place: u64) {
        if let Some(counted) = &mut span.counted {
            counted.place = place;
        }
        if self == Self::Finished {
            record_exemplar(span);
        }
        if self != Self::Kept {
            span.counted = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Choice;
    use crate::config::Config;

    #[test]
    fn only_where_traces_are_chosen_from_for_export_is_the_choice_waited_for() {
        let mut config = Config::default();
        assert_eq!(Choice::of(&config), Choice::Finished);
        config.sampling.share = 0.5;
        assert_eq!(Choice::of(&config), Choice::Finished, "nothing is exported");
        config.export.lines.path = Some("spans.jsonl".into());
        assert_eq!(Choice::of(&config), Choice::Kept);
        config.sampling.share = 1.0;
        assert_eq!(Choice::of(&config), Choice::Finished);
        config.metrics.exemplars = false;
        assert_eq!(Choice::of(&config), Choice::Nothing);
    }
}
