r"""How several vocabularies cut the words of a text: a table, and a picture.

    python -m data_prep.compare_vocabularies --vocab_dir=vocabulary --other=vocab.txt,directory \
        --input='held_out/*.txt' --output=vocabularies.svg

A `vocab.txt` among `--other` is used with the text settings of `--vocab_dir`; a directory with its own.
"""

import os

from absl import flags

from data_prep.build.tasks import plan_tasks
from data_prep.command_line import prepare_tool
from data_prep.corpus import listing
from data_prep.train_vocabulary import load_other
from data_prep.words import counting, measuring
from electra_es import files
from electra_es.errors import UsageError, run_main
from electra_es.flags import define, parse_flags_only, refuse_flags
from electra_es.settings import PATH, PATHS, Range
from electra_es.text.tokenizer import load_tokenizer


def main() -> None:
    define("vocab_dir", str, "", "Vocabulary directory, or a model directory.", PATH)
    define("other", str, "", "Others: directories or vocab.txt files, comma-separated.", PATHS)
    define("input", str, "", "Text that none of them was trained on: paths, globs or folders.", PATHS)
    define("max_characters", int, 20_000_000, "Only this much of the text is used.",
           Range(low=1, high=10**10, why="a sample is enough"))
    define("output", str, "", "Picture to write, .svg, .png or .pdf.", PATH)
    define("overwrite", bool, False, "Replace --output if it exists.")
    prepare_tool()
    parse_flags_only()
    values = flags.FLAGS
    if not values.vocab_dir or not values.input:
        raise UsageError("--vocab_dir and --input are needed")
    if not values.output:
        refuse_flags("no --output", ("overwrite",))
    elif not values.output.endswith((".svg", ".png", ".pdf")):
        raise UsageError(f"output={values.output}: expected a name that ends in .svg, .png or .pdf")
    elif files.exists(values.output) and not values.overwrite:
        raise UsageError(f"{values.output}: exists: --overwrite replaces it")
    ours = load_tokenizer(values.vocab_dir)
    tokenizers = {values.vocab_dir: ours} | {
        path: load_other(path, ours.config) for path in listing.parts_of(values.other)}
    documents = (document for task in plan_tasks(listing.list_files(values.input))
                 for document in counting.sampled_documents(task, 1.0))
    rows = measuring.compare(measuring.first_documents(documents, values.max_characters), tokenizers)
    print("\n".join(measuring.table(rows)))
    if values.output:
        measuring.draw(rows, values.output)
        print(f"{os.path.basename(values.output)}: written")


if __name__ == "__main__":
    run_main(main)
