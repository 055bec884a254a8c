r"""Writes a model as Hugging Face folders, or imports such a folder as a model directory.

    python -m electra_es.export.huggingface --model_dir=runs/sample/model --output=runs/published
    python -m electra_es.export.huggingface --model_dir=M --output=DIR --name=me/electra-es \
        --licence=apache-2.0 --datasets=oscar --push_to_hub=me/electra-es
    python -m electra_es.export.huggingface --model_dir=runs/pos/trial-1/model --output=tagger
    python -m electra_es.export.huggingface --import_from=DIR --output=MODEL_DIR
    python -m electra_es.export.huggingface --import_from=selectra_small \
        --import_generator=selectra_small_generator --output=MODEL_DIR

Exporting gives DIR/discriminator and DIR/generator, each with model.safetensors, config.json,
tokenizer.json, tokenizer_config.json, the vocabulary, text.json and README.md. Of a fine-tuned model
(the directory model/ of a trial) DIR itself is such a folder.
"""

from electra_es.errors import UsageError, run_main
from electra_es.export.huggingface.read import import_folder
from electra_es.export.huggingface.write import export_huggingface, push_to_hub, upload
from electra_es.export.model_card import CardOptions
from electra_es.finetuning.export.huggingface import export_finetuned_huggingface
from electra_es.finetuning.saved import is_finetuned
from electra_es.flags import define, parse_flags_only, refuse_flags, refuse_unused, required
from electra_es.settings import NAME, PATH, REPOSITORY, Range


def main() -> None:
    model_dir = define("model_dir", str, "", "Model directory to export.", PATH)
    source = define("import_from", str, "", "Hugging Face folder to import.", PATH)
    generator = define("import_generator", str, "", "Folder of its generator, if apart.", PATH)
    output = define("output", str, "", "Directory to write.", PATH)
    overwrite = define("overwrite", bool, False, "Replace an earlier export or import there.")
    name = define("name", str, "", "Name of the model in its card.", NAME)
    licence = define("licence", str, "", "Licence in its card, such as apache-2.0.", NAME)
    datasets = define("datasets", tuple[str, ...], (), "Data sets in its card.", NAME)
    watts = define("watts", float, 0.0, "Mean power during training, for its card.",
                   Range(low=0, high=1e9, why="1e9 W is a power station"))
    results = define("results", tuple[str, ...], (), "Files of fine-tuning results, for its card.",
                     PATH)
    notes = define("notes", str, "", "Markdown file for its card: authors, funding, contact.", PATH)
    hub = define("push_to_hub", str, "", "Repository to upload to, such as me/electra-es.", REPOSITORY)
    private = define("private", bool, False, "Make new repositories private.")
    parse_flags_only()
    if bool(model_dir.value) == bool(source.value):
        raise UsageError("expected either --model_dir, to export, or --import_from")
    if source.value:
        refuse_unused("--import_from", {"import_from", "import_generator", "output", "overwrite"})
    else:
        refuse_flags("--model_dir", {"import_generator"})
    if not hub.value:
        refuse_flags("no --push_to_hub", {"private"})
    target = required(output, "a directory to write")
    if source.value:
        imported = import_folder(source.value, target, generator=generator.value,
                                 overwrite=overwrite.value)
        note = f"; {len(imported.new)} variables of a generator are new" if imported.new else ""
        print(f"{target}: a model directory from {source.value}, its weights read back and equal{note}; "
              "a run starts from it with "
              f"--init_checkpoint={target}")
        return
    options = CardOptions(name.value or hub.value, licence.value, datasets.value, watts.value,
                          results.value, notes.value)
    finetuned = is_finetuned(model_dir.value)
    if finetuned:
        refuse_flags("a fine-tuned model", {"watts", "results"})
    export = export_finetuned_huggingface if finetuned else export_huggingface
    exported = export(model_dir.value, target, options=options, overwrite=overwrite.value)
    print(exported.summary(target, model_dir.value, "read back"))
    if hub.value and finetuned:
        upload(target, hub.value, private.value)
        print(f"uploaded: {hub.value}")
    elif hub.value:
        names = push_to_hub(target, hub.value, exported.parts, private.value)
        print("uploaded: " + ", ".join(names))


if __name__ == "__main__":
    run_main(main)
