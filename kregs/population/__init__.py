"""Many models of one structure, trained as one. How it flows, file by file:

1.  Compiled Keras models come in (`population.py`); each is read as a graph of layers (`graph.py`)
    and becomes a `Member` with a signature: what must be equal (`signature.py`). Functions and
    classes, which may be defined anew for each model, are told apart by what they compute
    (`fingerprint.py`).
2.  Members of one signature share a `Layout`: a place for every number that may differ, λ, rates,
    learning rate, ... (`layout.py`). Most layer classes have a stacked form (`registry.py`,
    `layers/`), which computes on tensors of K members (`stacked.py`) and draws noise by each
    member's seed (`threefry.py`); any other layer is called once a member (`layers/by_member.py`).
    A part that is frozen in all can be computed beforehand (`frozen.py`).
3.  A `Program` is the stacked model (`stacked_model.py`) with loss, metrics (`objective.py`) and
    optimizer (`optimizers.py`; any other by `optimizer_by_member.py`), compiled once, with a slot
    for each of K members (`program.py`).
4.  A `Training` takes `Job`s, members to be trained (`jobs.py`), from a queue, puts them into the
    slots of each device (`lane.py`) with their rows (`rows.py`), epoch by epoch, as many as memory
    holds (`capacity.py`), and yields each job when it has ended (`training.py`). Keras callbacks
    are called for each member, which they see as a Keras model of its own (`callbacks.py`).
5.  A job then has its history and weights; `Population` hands them back as plain Keras models.
    Models that are built to be read only, as a search's are, draw what something reads of their
    initial weights (`undrawn.py`).

Every private name of Keras that this needs is in `keras_internals.py`.

What it promises, and the tests that say so, in `tests/population/`:

exact: without noise a member ends where Keras's `fit` ends from the same weights and batches
    test_exact.py::test_layer, test_exact.py::test_optimizer, test_exact.py::test_loss,
    test_exact.py::test_last_batch_is_smaller, test_exact.py::test_weights_of_rows_and_classes
noise is distributed as Keras's
    layers/test_noise.py::test_noise_layers_agree_with_keras_in_distribution
independent: what a member becomes depends neither on the others nor on its place among them
    test_promises.py::test_independent_of_the_others,
    test_promises.py::test_slots_are_given_on_without_a_trace,
    test_devices.py::test_members_do_not_depend_on_their_device
paired: members of one seed have the same batches, initial weights and noise
    test_promises.py::test_members_with_one_seed_are_paired
isolated: a member that diverges harms no other
    test_promises.py::test_a_member_that_diverges_harms_nobody,
    test_metrics.py::test_a_member_that_diverges_harms_no_metric_of_the_others
faithful: callbacks, early stopping and metrics of each member are Keras's
    test_promises.py::test_early_stopping_is_keras,
    test_promises.py::test_learning_rate_callbacks_are_each_members_own,
    test_callbacks.py::test_own_callbacks_see_and_change_a_model_of_the_member_s_own,
    test_callbacks.py::test_files_are_those_that_fit_writes,
    test_metrics.py::test_metric_is_that_of_keras
drop-in: an epoch has the rows that Keras's has, of arrays and of datasets
    test_steps.py::test_epochs_are_those_of_keras, test_streams.py::test_members_end_where_fit_ends
rows of its own: with `splits` a member is what `fit` makes of its rows, of no others
    test_splits.py::test_each_member_is_what_fit_makes_of_its_rows,
    test_splits.py::test_shuffled_folds_see_all_their_rows_and_no_others
any layer and optimizer: what has no stacked form is called once a member
    layers/test_by_member.py::test_members_end_where_keras_ends,
    test_optimizer_by_member.py::test_members_end_where_keras_ends
continued: two calls do what one does, in another process, too
    test_continued.py::test_two_calls_do_what_one_does,
    test_continued.py::test_a_saved_population_goes_on_where_it_ended,
    test_training.py::test_two_halves_are_the_whole
nothing is lost: not by an error, nor where memory runs out
    test_training.py::test_an_error_comes_after_what_has_ended,
    test_training.py::test_out_of_memory_halves_the_members_and_loses_none
honest fall-back: what cannot be stacked is an error that says why, and leaves models as they were
    test_promises.py::test_what_cannot_be_stacked_is_a_clear_error,
    test_callbacks.py::test_what_a_population_cannot_follow_is_refused_and_models_are_as_they_were
"""

from kregs.population import layers  # noqa: F401  (registers the stacked forms)
from kregs.population.population import Population
from kregs.population.registry import Context, NotStackable, StackedLayer, register
from kregs.population.stacked import Stacked

__all__ = ["Context", "NotStackable", "Population", "Stacked", "StackedLayer", "register"]
