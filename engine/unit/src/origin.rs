//! Where the values of references were written: a finding about one belongs to the line that somebody has to change.
//!
//! A value that came through `{{ … }}` stands at the reference in the unit. What is wrong with it is mostly wrong in the machine
//! config, so a finding that is about nothing but the value points there, and to the unit besides.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Label};
use crate::source::Span;

/// The references of a unit, each with where its value was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Arc<[(Span, Span)]>);

impl Origins {
    /// Of these pairs. A text with more than one reference in it has its value from no single place.
    pub(crate) fn new(mut pairs: Vec<(Span, Span)>) -> Self {
        pairs.sort();
        pairs.dedup();
        let single = |at: usize| {
            let other = |i: usize| pairs.get(i).is_some_and(|(span, _)| *span == pairs[at].0);
            !other(at + 1) && (at == 0 || !other(at - 1))
        };
        Self((0..pairs.len()).filter(|at| single(*at)).map(|at| pairs[at]).collect())
    }

    /// Where the value was written that stands at this place; nothing where it was written there.
    pub fn of(&self, span: Span) -> Option<Span> {
        let at = self.0.binary_search_by_key(&span, |(reference, _)| *reference).ok()?;
        Some(self.0[at].1)
    }

    /// Lets a finding about the value of a reference point to where that was written.
    pub fn blame(&self, finding: &mut Diagnostic) {
        let Some(written) = self.of(finding.label.span) else { return };
        let reference = std::mem::replace(&mut finding.label.span, written);
        let text = "the unit takes the value here".to_owned();
        finding.others.push(Label { span: reference, text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::FileId;

    #[test]
    fn a_finding_goes_where_the_value_was_written() {
        let span = |at: u32| Span { file: FileId::DEFAULT, start: at, end: at + 1 };
        let pairs = vec![(span(5), span(50)), (span(1), span(10)), (span(5), span(51))];
        let origins = Origins::new(pairs);
        let check = |at: u32, expect: &[u32]| {
            let mut finding = Diagnostic::new("bad-value", span(at), "x");
            origins.blame(&mut finding);
            let places = std::iter::once(&finding.label).chain(&finding.others);
            assert_eq!(places.map(|label| label.span.start).collect::<Vec<_>>(), expect);
        };
        check(1, &[10, 1]);
        check(2, &[2]);
        // Nobody can say which of two it is.
        check(5, &[5]);
        let twice = Origins::new(vec![(span(1), span(10)), (span(1), span(10))]);
        assert_eq!(twice.of(span(1)), Some(span(10)));
    }
}
