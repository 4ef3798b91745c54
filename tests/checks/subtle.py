"""Which check is meant for each subtle mutant, and why some are not seen."""

import subtle_contexts as contexts
import subtle_draws as draws
import subtle_holes as holes
import subtle_scores as scores
import subtle_tables as tables

_LAW = "draws_follow_scores_in_many_columns"
_MASS = "mass_is_one_in_many_columns"
_ROWS = "scores_do_not_depend_on_the_number_of_rows"
_N = "the_law_of_a_row_does_not_depend_on_n"
_ALONE = "draws_are_independent"
_SEED = "every_bit_of_the_seed_counts"
_TRIP = "transforms_there_and_back"
_COLUMN = "each_column_of_the_context_counts"
_GIVEN = "draws_follow_scores_under_contexts"
_CELLS = "draws_follow_scores_over_cells"
_MIXED = "mixed_rows_have_mass_one_and_are_drawn_by_it"
_MEASURE = "measure_is_that_of_the_columns"
_SUPPORT = "each_form_of_support_has_mass_one"
_SMOOTH = "scores_are_smooth_to_their_precision"

MEANT = {
    draws.HotDraws: _LAW,
    draws.CoolDraws: _LAW,
    draws.SlightlyCoolDraws: _LAW,
    draws.OneTailMissing: _LAW,
    draws.ThirdColumnCool: _LAW,
    draws.ThirdColumnAlone: _LAW,
    draws.WeakerCorrelation: _LAW,
    draws.LastBatchOfDraws: _N,
    draws.DrawsBeyondFiveThousand: _ALONE,
    draws.DrawsBeyondAMillion: _N,
    draws.InPairs: _ALONE,
    draws.SlowlyMixing: _ALONE,
    draws.SecondHalfRepeats: _ALONE,
    draws.EachTwice: _ALONE,
    draws.Recentered: _ALONE,
    draws.Standardized: _ALONE,
    draws.FewDrawsAreCool: _N,
    draws.StartsAtTheMode: _N,
    draws.SortedDraws: _ALONE,
    draws.SeedModulo: _SEED,
    draws.SeedOfTheFirstColumn: _SEED,
    draws.MemorizedDraws: "no_row_is_remembered",
    draws.OneMemorizedDrawInAThousand: "no_row_is_remembered",
    draws.WrongInverse: _LAW,
    scores.NarrowScores: _LAW,
    scores.OnePercentTooMuch: _MASS,
    scores.OnePercentTooLittle: _MASS,
    scores.OnePercentInThreeColumns: _MASS,
    scores.Wavy: _LAW,
    scores.WavyInTheLastColumn: _LAW,
    scores.ThirdColumnWithoutScale: _MASS,
    scores.FourColumnsAndNoMore: _LAW,
    scores.LastBatchOfScores: _ROWS,
    scores.ScoresBeyondFiveThousand: _ROWS,
    scores.ScoresBeyondAMillion: _ROWS,
    scores.MemorizedScores: "no_row_is_remembered",
    scores.SpikesOnRows: "no_row_is_remembered",
    scores.BrainPrecision: _SMOOTH,
    scores.TwoDecimals: _SMOOTH,
    scores.TransformWithWrongInverse: _TRIP,
    scores.TransformWithShortInverse: _TRIP,
    scores.TransformWithWrongDeterminant: _TRIP,
    scores.TransformOfAnotherLaw: _TRIP,
    scores.ClippedScores: "tails_have_a_finite_mass",
    scores.FlatTail: "tails_have_a_finite_mass",
    scores.LogTail: "tails_have_a_finite_mass",
    scores.RisingTail: "tails_have_a_finite_mass",
    contexts.SecondContextIgnored: _COLUMN,
    contexts.LastContextIgnored: _COLUMN,
    contexts.CategoriesIgnored: _COLUMN,
    contexts.LevelsMerged: _COLUMN,
    contexts.ContextIgnoredInDraws: _GIVEN,
    contexts.DrawsOfTheNextContext: _GIVEN,
    contexts.DrawsBeginAgain: _GIVEN,
    contexts.WrongInverseUnderContext: _GIVEN,
    contexts.CoolUnderContext: _GIVEN,
    contexts.MassMovesWithContext: _GIVEN,
    contexts.OneNoiseForAllContexts: _GIVEN,
    contexts.ScoresOfTheNextContext: "rows_keep_their_contexts",
    contexts.FirstContextForAll: "rows_keep_their_contexts",
    contexts.ContextsBeginAgain: "rows_keep_their_contexts",
    contexts.LastRowsWithoutContext: "rows_keep_their_contexts",
    contexts.CoolNoise: "noise_of_draws_is_standard_normal",
    contexts.InverseForgetsContext: "transforms_there_and_back_under_contexts",
    tables.ClaimsCounting: _MEASURE,
    tables.ClaimsLebesgue: _MEASURE,
    tables.AtomsNotInTheMeasure: _MEASURE,
    tables.BoundCalledExact: "says_what_its_scores_are",
    tables.AtomsTooLight: _MIXED,
    tables.AtomsAsDensities: _MIXED,
    tables.FewerAtomsInDraws: _MIXED,
    tables.CodesBeyondTheData: _CELLS,
    tables.CategoriesInAnotherOrder: _CELLS,
    tables.OrdinalsRoundUp: _CELLS,
    tables.DatesADayEarly: _CELLS,
    tables.AtLeastWithoutJacobian: _SUPPORT,
    tables.AtMostLeaks: _SUPPORT,
    tables.IntervalTooWide: _SUPPORT,
    tables.DrawsOnTheEnds: _SUPPORT,
    tables.CircleNotClosed: _SUPPORT,
    tables.InstantsPerDay: "instants_have_mass_one_and_are_drawn_by_it",
    holes.GivenIgnored: "given_columns_obey_the_chain_rule",
    holes.GivenNotSubtracted: "given_columns_obey_the_chain_rule",
    holes.HolesFilled: "holes_are_integrated_out",
    holes.HolesCount: "holes_are_integrated_out",
    holes.SecondConditionIgnored: "draws_under_conditions_follow_the_scores",
    holes.HolesDrawnBack: "imputed_cells_follow_the_scores",
    holes.ImputedAlone: "imputed_cells_follow_the_scores",
    tables.EndCountsTwice: "sums_to_one_over_strings",
    tables.LongestMayGoOn: "sums_to_one_over_strings",
    tables.ShortStringsDropped: "draws_follow_scores_over_strings",
    tables.ShortStringsCutOff: "draws_follow_scores_over_strings",
}
"""The check that is meant for each."""

UNSEEN = {
    draws.DrawsCutAtFour: (
        "A test that counts draws beyond four spreads needs 2.9e5 draws to miss them at a level of "
        "1e-8; no check counts there. The spread moves by 1.2e-4, and 1e6 draws have a "
        "standard error of 7e-4."
    ),
    draws.SeedOfTheFirstThousand: "Seeds are compared over the first 200 rows that they give.",
    scores.TransformOfSinglePrecision: (
        "Of an estimator that does not say its dtype no more is asked than 32 bits give."
    ),
    scores.HalfPrecision: (
        "Jitter is looked for within a quarter of a spread of the median, where sixteen bits move "
        "scores by 3e-5, less than float32 may; at three spreads they move by 4e-3, which no check "
        "looks for."
    ),
    scores.ProbabilitiesFirst: (
        "A score of -inf far away is right for a density with a bounded support, which the suite cannot "
        "tell from one that underflows."
    ),
}
"""Mutants that no check is meant for at ``standard``, with the reason."""
