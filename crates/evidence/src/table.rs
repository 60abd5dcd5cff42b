//! The runs by arm and seed, complete and over the same test images.

use evenset_core::Group;

use crate::{Arm, ArmRun, Error};

/// Runs in order.
pub(crate) struct Table<'a> {
    /// In the order of the report.
    pub(crate) arms: Vec<Arm>,
    /// `[arm][seed]`.
    pub(crate) runs: Vec<Vec<&'a ArmRun>>,
}

impl<'a> Table<'a> {
    /// Orders the runs; those of `needed` must be among them.
    pub(crate) fn new(runs: &'a [ArmRun], needed: &[Arm]) -> Result<Self, Error> {
        let mut arms: Vec<Arm> = runs.iter().map(|run| run.arm).collect();
        arms.sort_unstable();
        arms.dedup();
        if let Some(needed) = needed.iter().find(|arm| !arms.contains(arm)) {
            return Err(Error::NoRuns(*needed));
        }
        let mut seeds: Vec<u32> = runs.iter().map(|run| run.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        let table = arms
            .iter()
            .map(|&arm| {
                let of = |&seed: &u32| runs.iter().find(|run| run.arm == arm && run.seed == seed);
                seeds.iter().map(|seed| of(seed).ok_or(Error::MissingRun { arm, seed: *seed })).collect()
            })
            .collect::<Result<Vec<Vec<_>>, _>>()?;
        check_test(table.iter().flatten().copied())?;
        Ok(Self { arms, runs: table })
    }

    /// How many classifiers each arm has.
    pub(crate) fn seeds(&self) -> usize {
        self.runs.first().map_or(0, Vec::len)
    }

    /// How many test images there are.
    pub(crate) fn test_images(&self) -> usize {
        let first = self.runs.first().and_then(|runs| runs.first());
        first.map_or(0, |run| run.groups.iter().map(|group| group.total()).sum())
    }
}

/// Whether all runs were tested on the same images, as far as their groups and labels say.
pub(crate) fn check_test<'a>(runs: impl IntoIterator<Item = &'a ArmRun>) -> Result<(), Error> {
    let mut runs = runs.into_iter();
    let Some(first) = runs.next() else { return Ok(()) };
    let same_group = |a: &crate::GroupOutcome, b: &crate::GroupOutcome| {
        let (one, other) = (&a.predictions, &b.predictions);
        let labels = one.rows().iter().map(|row| row[0]).eq(other.rows().iter().map(|row| row[0]));
        (&a.group, a.counts, one.classes()) == (&b.group, b.counts, other.classes()) && labels
    };
    let same = |run: &ArmRun| {
        run.label == first.label
            && run.groups.len() == first.groups.len()
            && run.groups.iter().zip(&first.groups).all(|(a, b)| same_group(a, b))
    };
    match runs.find(|run| !same(run)) {
        Some(run) => Err(Error::OtherTest { arm: run.arm, seed: run.seed }),
        None => Ok(()),
    }
}

/// A run as if the test images of `groups` alone had been tested; `None` where there are none.
pub(crate) fn restricted(run: &ArmRun, groups: &[Group]) -> Option<ArmRun> {
    let mut kept: Vec<_> = run.groups.iter().filter(|outcome| groups.contains(&outcome.group)).cloned().collect();
    if !kept.iter().any(|outcome| outcome.counts) {
        kept.iter_mut().for_each(|outcome| outcome.counts = true);
    }
    (!kept.is_empty()).then(|| {
        let figures = ArmRun::new(run.arm, run.seed, &run.label, kept);
        ArmRun {
            real_images: run.real_images,
            generated_images: run.generated_images,
            validation_images: run.validation_images,
            kept_step: run.kept_step,
            note: run.note.clone(),
            ..figures
        }
    })
}
