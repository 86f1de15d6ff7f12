"""The classes around the optimizer: Trainer, data sets and tasks from Python, without a settings file."""

from hf_l3rs import L3RS, L3RSTrainer
from hf_l3rs.meta.meta_arguments import MetaTrainingArguments
from hf_l3rs.tasks.images import load_image_dataset, load_image_pool
from hf_l3rs.tasks.task_arguments import DatasetArguments, TaskArguments
from tests.bad_inputs.doors import Row, python
from tests.hub.examples import make_network
from tests.tiny import tiny_resnet, training_arguments


def trainer(**options):
    def call(place):
        filled = {name: value(place) if callable(value) else value for name, value in options.items()}
        L3RSTrainer(tiny_resnet(), training_arguments(place.own), **filled)

    return python(call)


def unbound(place):
    return L3RS(network=make_network())


def pool(**options):
    return python(lambda place: load_image_pool(place.fill("<images>"), place.fill("<model>"), **options))


TRAINER = [
    Row("L3RSTrainer: no L3RS", trainer(), "got no learned optimizer; pass l3rs="),
    Row("L3RSTrainer: a number", trainer(l3rs=3), "l3rs must be .*got int"),
    Row("L3RSTrainer: two optimizers", trainer(l3rs=unbound, optimizers=lambda place: (unbound(place), None)),
        "both l3rs and another optimizer; leave out"),
    Row("L3RSTrainer: options for what is loaded", trainer(l3rs=unbound, l3rs_kwargs={"revision": "v1"}),
        "options revision are for .*leave them out"),
]  # fmt: skip

IMAGES = [
    Row("load_image_dataset: no such folder", python(lambda place: load_image_dataset("./absent")), "'./absent'"),
    Row("load_image_pool: no image", pool(max_images=0), "max_images is 0, but must be"),
    Row("load_image_pool: negative memory", pool(max_memory=-1), "max_memory is -1, but must be"),
    Row("load_image_pool: no class", pool(classes=[]), "no image of the classes .*; choose"),
    Row("load_image_pool: a negative class", pool(classes=[-1]), "no class -1; the classes are"),
]  # fmt: skip

SETTINGS = [
    Row("DatasetArguments: None", python(lambda place: DatasetArguments(None)), "path must be text, got None"),
    Row("TaskArguments: a path", python(lambda place: TaskArguments("images")), "write a single one as .path."),
    Row("TaskArguments: None for a number", python(lambda place: TaskArguments(["images"], num_classes=None)),
        "num_classes must be a whole number, got None"),
    Row("MetaTrainingArguments: a number for a folder", python(lambda place: MetaTrainingArguments(5)),
        "output_dir must be text, got 5"),
]  # fmt: skip

ROWS = [*TRAINER, *IMAGES, *SETTINGS]
