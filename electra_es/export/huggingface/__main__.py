r"""Writes a model as Hugging Face folders, or makes a model directory of such a folder.

    python -m electra_es.export.huggingface --model_dir=runs/sample/model --output=runs/published
    python -m electra_es.export.huggingface --model_dir=M --output=DIR --name=me/electra-es \
        --licence=apache-2.0 --datasets=oscar --push_to_hub=me/electra-es
    python -m electra_es.export.huggingface --import_from=DIR --output=MODEL_DIR
    python -m electra_es.export.huggingface --import_from=selectra_small \
        --import_generator=selectra_small_generator --output=MODEL_DIR

Exporting gives DIR/discriminator and DIR/generator, each with model.safetensors, config.json,
tokenizer.json, tokenizer_config.json, the vocabulary, text.json and README.md.
"""

from absl import flags

from electra_es.errors import UsageError, run_main
from electra_es.export.huggingface.read import import_folder
from electra_es.export.huggingface.write import export_huggingface, push_to_hub
from electra_es.export.model_card import CardOptions
from electra_es.flags import parse_flags, required


def main() -> None:
    model_dir = flags.DEFINE_string("model_dir", "", "Model directory to export.")
    source = flags.DEFINE_string("import_from", "", "Hugging Face folder to import.")
    generator = flags.DEFINE_string("import_generator", "", "Folder of its generator, if apart.")
    output = flags.DEFINE_string("output", "", "Directory to write.")
    overwrite = flags.DEFINE_bool("overwrite", False, "Replace an earlier export or import there.")
    name = flags.DEFINE_string("name", "", "Name of the model in its card.")
    licence = flags.DEFINE_string("licence", "", "Licence in its card, such as apache-2.0.")
    datasets = flags.DEFINE_list("datasets", [], "Data sets in its card.")
    watts = flags.DEFINE_float("watts", 0.0, "Mean power during training, for its card.")
    results = flags.DEFINE_list("results", [], "Files of fine-tuning results, for its card.")
    hub = flags.DEFINE_string("push_to_hub", "", "Repository to upload to, such as me/electra-es.")
    private = flags.DEFINE_bool("private", False, "Make new repositories private.")
    if rest := parse_flags():
        raise UsageError(f'"{rest[0]}": expected flags only')
    if bool(model_dir.value) == bool(source.value):
        raise UsageError("expected either --model_dir, to export, or --import_from")
    target = required(output, "a directory to write")
    if source.value:
        imported = import_folder(source.value, target, generator=generator.value,
                                 overwrite=overwrite.value)
        note = f"; {len(imported.new)} variables of a generator are new" if imported.new else ""
        print(f"{target}: a model directory from {source.value}, its weights read back and equal{note}; "
              "a run starts from it with "
              f"--init_checkpoint={target}")
        return
    options = CardOptions(name.value or hub.value, licence.value, tuple(datasets.value), watts.value,
                          tuple(results.value))
    exported = export_huggingface(model_dir.value, target, options=options, overwrite=overwrite.value)
    print(exported.summary(target, model_dir.value, "read back"))
    if hub.value:
        names = push_to_hub(target, hub.value, exported.parts, private.value)
        print("uploaded: " + ", ".join(names))


if __name__ == "__main__":
    run_main(main)
