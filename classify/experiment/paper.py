"""The protocol of an experiment in words."""

from typing import Any


def protocol_text(results: dict[str, Any]) -> str:
    """The protocol in words, to be pasted into a paper."""
    settings, counts, noun = results["settings"], results["counts"], results["noun"]
    choosing = 100 * results["border"]["choosing_share"]
    index = results["class_names"].index(results["class"])
    own_generators = results["generator_per_unit"]
    of_table, generated = noun == "rows", "arm" in results["verdict"]
    if results["folds"]:
        with_generators = (
            ", training one generator per fold on that fold's training images alone (recipe "
            f"{settings['gan_recipe']}, {settings['gan_steps']} steps of "
            f"{settings['gan_batch_size']} images, width {settings['gan_width']}"
            + "".join(f", {part}" for part in settings.get("gan_parts") or ())
            + ")"
            if generated and not of_table
            else ""
        )
        where = (
            f"We cross-fitted over {results['folds']} stratified folds (groups and exact "
            f"duplicates kept whole){with_generators}, so that each of the "
            f"{counts['test'][index]} {noun} of {results['class']} was tested once by models that "
            "never saw it."
        )
    else:
        where = (
            f"The stored split was kept: {counts['train'][index]} training, "
            f"{counts['validation'][index]} validation and {counts['test'][index]} test {noun} of "
            f"{results['class']} (of {sum(counts['train'])}, {sum(counts['validation'])} and "
            f"{sum(counts['test'])} in all)."
        )
        doubtful = any(
            note.startswith("Leak allowed") or "never saw the" in note for note in results["notes"]
        )
        if generated and not of_table and not doubtful:
            several = len(results["sources"]) > 1
            where += (
                f" The generator{'s' * several} saw training images only; this was checked by "
                "image fingerprints."
            )
    if own_generators:
        where += (
            " Each repeat and fold trained its own generator of rows "
            f"({settings['gan_steps']} steps), on the rows that its classifiers trained on."
        )
    if of_table:
        how = f"model {settings['model']} unless the arm names another, fitted to its own end"
        shared = "its seed"
    else:
        passes = settings["steps"] * settings["batch_size"] / sum(counts["train"])
        how = (
            f"network {settings['model']}, {settings['steps']} optimiser steps of "
            f"{settings['batch_size']} images in every arm ({passes:.1f} passes over the "
            "training images)"
        )
        shared = "its initial weights, its seeds of draws and augmentation"
    return (
        f"{where} Each of {len(results['arms'])} arms was trained {results['repeats']} times "
        f"({how}); repeat r of every arm shared {shared} and its border between training and "
        f"validation {noun}. In each repeat {choosing:.0f} % of the validation {noun} chose "
        f"{'thresholds' if of_table else 'weights and thresholds'}, and the rest joined the "
        "training. Doses and competing arms were chosen by validation average precision, in each "
        f"fold on its own validation {noun}. Test "
        f"{noun} were read once. Differences are means over paired repeats; their variance "
        "is the sum of the variance over repeats, of a bootstrap over "
        f"{'groups of ' if results['grouped'] else ''}test {noun}"
        + (
            f", and of what folds differ by beyond their {noun} with Nadeau and Bengio's factor"
            if results["folds"]
            else ""
        )
        + ", held against Student's t with Satterthwaite's degrees of freedom. p values are "
        "adjusted by Holm's method within each baseline and measure. "
        f"Recalls are matched at a false-positive rate of "
        f"{100 * results['matched']['false_positive_rate']:g} % with thresholds chosen on "
        f"validation {noun}. {results['rule']['in_words']} The intervals cover: "
        f"{'; '.join(results['covered']['covered'])}. They do not cover: "
        f"{'; '.join(results['covered']['not_covered'])}."
        + "".join(f" {note}" for note in results["notes"])
    )
