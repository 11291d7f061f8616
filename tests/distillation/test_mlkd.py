import numpy as np
import pytest
import torch
from transformers import BertModel

from edgemin_hf import MLKDConfig, MLKDTaskConfig, TaskDistillationConfig, Weighted, create_student
from edgemin_hf.distillation.mlkd import sample_contrast, sample_similarity_kl
from edgemin_hf.modeling.encoder import EMBEDDINGS, Activation, Encoder
from edgemin_hf.modeling.families import Shape
from edgemin_hf.modeling.hooks import record
from tests.helpers.formulas import reference, terms_of
from tests.helpers.models import FAMILIES, batch, tiny
from tests.helpers.training import assert_same, dataset, make, weights

LABELS = torch.tensor([0, 2, 0, 1, 0])


def random(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mse_by_formula(student, teacher, mask):
    """Token by token: the mean over the width, an example's real tokens, and examples."""
    examples = []
    for s, t, real in zip(student, teacher, mask.bool(), strict=True):
        tokens = [((s[place] - t[place]).double().numpy() ** 2).mean() for place in np.flatnonzero(real)]
        examples.append(np.mean(tokens))
    return np.mean(examples)


def similarity_by_formula(student, teacher):
    """One sample at a time: KL of its row of softmax(H H^T / sqrt(d))."""
    total = 0.0
    for row in range(len(student)):
        logs = []
        for states in (student.double().numpy(), teacher.double().numpy()):
            scores = states[row] @ states.T / np.sqrt(states.shape[1])
            logs.append(scores - scores.max() - np.log(np.exp(scores - scores.max()).sum()))
        total += (np.exp(logs[1]) * (logs[1] - logs[0])).sum() / len(student)
    return total


def contrast_by_formula(student, teacher, labels, temperature):
    """One anchor and positive at a time, over the 2b views."""
    views = [*student.double().numpy(), *teacher.double().numpy()]
    classes, total = [*labels.tolist()] * 2, 0.0
    for i, anchor in enumerate(views):
        scores = {
            j: anchor @ other / np.linalg.norm(anchor) / np.linalg.norm(other) / temperature
            for j, other in enumerate(views)
            if j != i
        }
        everything = sum(np.exp(score) for score in scores.values())
        positives = [j for j in scores if classes[j] == classes[i]]
        total -= sum(np.log(np.exp(scores[p]) / everything) for p in positives) / len(positives) / len(views)
    return total


def by_hand(states, projection):
    return states @ projection.weight.T + projection.bias


def narrow(family="bert", seed=1):
    return create_student(tiny(family, seed), 2, hidden_size=16, num_attention_heads=2).eval()


def test_sample_similarity_equals_the_formula():
    student, teacher = random(0, 5, 8), random(1, 5, 12)
    loss = sample_similarity_kl(student, teacher)
    assert loss.item() == pytest.approx(similarity_by_formula(student, teacher), rel=1e-12)
    assert abs(sample_similarity_kl(student, student).item()) < 1e-15
    assert sample_similarity_kl(student[:1], teacher[:1]).item() == 0, "a sample alone has no relations"
    order = torch.tensor([3, 1, 4, 0, 2])
    assert sample_similarity_kl(student[order], teacher[order]).item() == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize("labels", [LABELS, torch.zeros(5, dtype=torch.long), torch.arange(5)])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_sample_contrast_equals_the_formula(labels, temperature):
    student, teacher = random(0, 5, 8), random(1, 5, 8)
    loss = sample_contrast(student, teacher, labels, temperature)
    assert loss.item() == pytest.approx(contrast_by_formula(student, teacher, labels, temperature), rel=1e-12)
    order = torch.tensor([3, 1, 4, 0, 2])
    again = sample_contrast(student[order], teacher[order], labels[order], temperature)
    assert again.item() == pytest.approx(loss.item(), rel=1e-12)
    assert sample_contrast(student[:1], teacher[:1], labels[:1], temperature).item() == 0, "its other view alone"


def test_sample_contrast_is_small_where_classes_lie_apart():
    corners = torch.eye(8, dtype=torch.float64)[LABELS]
    assert sample_contrast(corners, 2 * corners, torch.arange(5), 0.07) > 0.3
    together = sample_contrast(corners, 2 * corners, LABELS, 0.07).item()
    assert together == pytest.approx((6 * np.log(5) + 4 * np.log(1)) / 10, abs=1e-4), "the least for such classes"


def test_gradients_of_the_student_alone():
    student, teacher = random(0, 5, 8).requires_grad_(), random(1, 5, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: sample_similarity_kl(s, teacher), student)
    assert torch.autograd.gradcheck(lambda s: sample_contrast(s, teacher.detach(), LABELS, 0.5), student)
    (sample_similarity_kl(student, teacher) + sample_contrast(student, teacher, LABELS, 0.07)).backward()
    assert teacher.grad is None
    assert student.grad.isfinite().all()


def test_autocast_changes_nothing_in_the_losses():
    student, teacher = random(0, 5, 8).float(), random(1, 5, 8).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = [sample_similarity_kl(student, teacher), sample_contrast(student, teacher, LABELS, 0.07)]
    outside = [sample_similarity_kl(student, teacher), sample_contrast(student, teacher, LABELS, 0.07)]
    assert [loss.item() for loss in inside] == [loss.item() for loss in outside]


@pytest.mark.parametrize("family", FAMILIES)
def test_first_stage_is_the_formulas_on_the_models_tensors(family):
    student, teacher, inputs = narrow(family), tiny(family), batch()
    config = MLKDConfig(embedding_weight=0.5, attention_weight=2.0, ffn_weight=3.0)
    objective = config.objective(Encoder(student), Encoder(teacher))
    activations = [
        Activation(EMBEDDINGS, "output"),
        *(Activation(layer, name) for layer in range(3) for name in ("context", "output")),
    ]
    with torch.no_grad():
        theirs = record(teacher, activations, logits=False, inputs=inputs)
        ours = record(
            student, [activation for activation in activations if activation.layer < 2], logits=False, inputs=inputs
        )
        terms = objective(ours, theirs, inputs)
        mask = inputs["attention_mask"]

        def relation(layer, other, name, heads):
            pair = (
                ours.activations[Activation(layer, name)].double(),
                theirs.activations[Activation(other, name)].double(),
            )
            return reference({"v": pair[0]}, {"v": pair[1]}, mask, heads, ("vv",))

        expected = {
            "mlkd_embeddings": 0.5 * relation(EMBEDDINGS, EMBEDDINGS, "output", 1),
            "mlkd_attention": 2 * (relation(0, 1, "context", 2) + relation(1, 2, "context", 2)),
            "mlkd_ffn": 3 * sum(
                mse_by_formula(
                    by_hand(ours.activations[Activation(layer, "output")], objective.projections[layer]),
                    theirs.activations[Activation(other, "output")],
                    mask,
                )
                for layer, other in ((0, 1), (1, 2))
            ),
        }  # fmt: skip
    assert list(terms) == list(expected)
    for name, term in terms.items():
        assert term.item() == pytest.approx(expected[name], rel=1e-4), name


@pytest.mark.parametrize("family", FAMILIES)
def test_second_stage_is_the_formulas_on_the_models_tensors(family):
    student, teacher, inputs = narrow(family), tiny(family), batch((7, 4, 9, 5, 6))
    config = MLKDTaskConfig(similarity_weight=2.0, contrast_weight=0.5, contrast_temperature=0.3)
    objective = config.objective(Encoder(student), Encoder(teacher))
    with torch.no_grad():
        recordings = [
            record(model, activations, logits=False, inputs=inputs)
            for model, activations in (
                (student, objective.student_activations),
                (teacher, objective.teacher_activations),
            )
        ]
        terms = objective(*recordings, {**inputs, "labels": LABELS})
        ours, theirs = (model.base_model(**inputs)[0][:, 0] for model in (student, teacher))
        projected = by_hand(ours, objective.projections)
    assert terms["mlkd_similarity"].item() == pytest.approx(2 * similarity_by_formula(ours, theirs), rel=1e-4)
    expected = 0.5 * contrast_by_formula(projected, theirs, LABELS, 0.3)
    assert terms["mlkd_contrast"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("config", [MLKDConfig(), MLKDTaskConfig()])
def test_padding_and_the_order_of_examples_change_nothing(config):
    student, teacher, labels, found = tiny(seed=1), tiny(), torch.tensor([1, 0, 1]), []
    for side, width, order in (("right", 9, [0, 1, 2]), ("right", 13, [0, 1, 2]), ("left", 12, [2, 0, 1])):
        inputs = {**batch(side=side, pad_to=width), "labels": labels}
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        inputs = {name: value[order] for name, value in inputs.items()}
        terms = terms_of(config, student, teacher, inputs)
        found.append([term.item() for term in terms.values()])
    for terms in found[1:]:
        assert terms == pytest.approx(found[0], rel=1e-4)


def test_equal_models_have_no_distance():
    inputs = {**batch(), "labels": torch.tensor([0, 1, 2])}
    first = terms_of(MLKDConfig(), tiny("mpnet"), tiny("mpnet"), inputs)
    assert all(term.abs() < 1e-6 for term in first.values())
    second = terms_of(MLKDTaskConfig(), tiny("mpnet"), tiny("mpnet"), inputs)
    assert abs(second["mlkd_similarity"]) < 1e-6


def test_terms_of_no_weight_are_left_out_and_nothing_is_read_or_learnt_for_them():
    student, teacher = Encoder(narrow()), Encoder(tiny())
    objective = MLKDConfig(attention_weight=0, ffn_weight=0).objective(student, teacher)
    assert objective.student_activations == [Activation(EMBEDDINGS, "output")]
    assert objective.projections is None
    assert MLKDTaskConfig(contrast_weight=0).objective(student, teacher).projections is None
    assert list(terms_of(MLKDTaskConfig(contrast_weight=0), student.model, teacher.model, batch())) == [
        "mlkd_similarity"
    ]


def test_splits_are_the_students_heads_or_those_asked_for():
    student, teacher, inputs = narrow(), tiny(), batch()
    own, two, eight = (terms_of(MLKDConfig(n), student, teacher, inputs)["mlkd_attention"] for n in (None, 2, 8))
    assert own == two
    assert own != eight


STAGES = {
    1: MLKDConfig(),
    2: [TaskDistillationConfig(soft_weight=1.0, hard_weight=0.0, temperature=1.0), MLKDTaskConfig()],
}


def trainer_of(folder, tokenizer, config, families=("bert", "bert"), **arguments):
    teacher = tiny(families[1])
    student = create_student(teacher, 2, hidden_size=16, num_attention_heads=2, model_type=families[0])
    return make(folder, tokenizer, student, teacher, config, **arguments)


@pytest.mark.long
@pytest.mark.parametrize(
    ("config", "families", "terms"),
    [
        (STAGES[1], ("bert", "bert"), ["mlkd_embeddings", "mlkd_ffn"]),
        (STAGES[1], ("albert", "albert"), ["mlkd_embeddings", "mlkd_ffn"]),
        (STAGES[1], ("distilbert", "mpnet"), ["mlkd_embeddings", "mlkd_ffn"]),
        # In models as tiny as these its gradient is too small to be seen beside the others'.
        (MLKDConfig(embedding_weight=0, ffn_weight=0), ("bert", "bert"), ["mlkd_attention"]),
        # A student that starts from its teacher sees a batch's samples alike already.
        (STAGES[2], ("bert", "bert"), ["soft_labels", "mlkd_contrast"]),
        (STAGES[2], ("distilbert", "mpnet"), ["mlkd_similarity", "mlkd_contrast"]),
    ],
)
def test_training_lowers_the_terms_and_leaves_no_projection(tmp_path, tokenizer, config, families, terms):
    trainer = trainer_of(
        tmp_path, tokenizer, config, families, max_steps=60, learning_rate=3e-3, per_device_train_batch_size=16,
        eval_data=dataset(), per_device_eval_batch_size=16,
    )  # fmt: skip
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    for name in terms:
        assert after[f"eval_{name}"] < 0.9 * before[f"eval_{name}"], name
    assert not any("projection" in name for name in trainer.model.state_dict())


@pytest.mark.parametrize("stage", [1, 2])
def test_resumed_equals_uninterrupted(tmp_path, tokenizer, stage):
    arguments = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    whole = trainer_of(tmp_path / "whole", tokenizer, STAGES[stage], **arguments)
    whole.train()
    resumed = trainer_of(tmp_path / "resumed", tokenizer, STAGES[stage], **arguments)
    projections = [torch.nn.ModuleList(each.projections for each in run.objectives) for run in (resumed, whole)]
    for parameter in projections[0].parameters():
        torch.nn.init.zeros_(parameter)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert_same(weights(resumed), weights(whole))
    assert_same(*(each.state_dict() for each in projections))


def test_contrast_needs_classes_in_training(tmp_path, tokenizer):
    trainer = make(tmp_path, tokenizer, config=MLKDTaskConfig(), data=dataset(labels=False))
    assert set(trainer.evaluate(dataset(labels=False))) >= {"eval_mlkd_similarity"}
    with pytest.raises(ValueError, match=r"contrast_weight: 1\.0 without labels"):
        trainer.train()
    with pytest.raises(ValueError, match="labels of shape"):
        terms_of(MLKDTaskConfig(), tiny(), tiny(), {**batch(), "labels": torch.zeros(3)})


@pytest.mark.parametrize("config", [MLKDTaskConfig(), Weighted(MLKDTaskConfig(), 0.5)], ids=["alone", "weighted"])
def test_a_student_without_a_head_gets_the_classes_too(tmp_path, tokenizer, config):
    headless = BertModel(create_student(tiny(), 2).config)
    trainer = make(tmp_path, tokenizer, headless, config=config, max_steps=1)
    trainer.train()
    assert "mlkd_contrast" in trainer.state.log_history[0]


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (MLKDConfig, {"splits": 0}, "splits: 0; allowed: 1 or more"),
        (MLKDConfig, {"ffn_weight": -1}, "ffn_weight: -1; allowed: 0 or more"),
        (MLKDConfig, {"embedding_weight": 0, "attention_weight": 0, "ffn_weight": 0}, "at least one above 0"),
        (MLKDTaskConfig, {"similarity_weight": 0, "contrast_weight": 0}, "at least one above 0"),
        (MLKDTaskConfig, {"contrast_weight": float("nan")}, "contrast_weight: nan"),
        (MLKDTaskConfig, {"contrast_temperature": 0}, "contrast_temperature: 0; allowed: above 0"),
    ],
)
def test_impossible_settings(config, settings, message):
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_settings_are_checked_against_the_models():
    student, teacher = Shape(3, 24, 4, 64), Shape(6, 48, 4, 64)
    MLKDConfig().check_shapes(student, teacher)
    MLKDConfig(splits=5, attention_weight=0).check_shapes(student, teacher)
    with pytest.raises(ValueError, match="splits: 16; allowed: a divisor of the student's width 24"):
        MLKDConfig(splits=16).check_shapes(student, teacher)
    with pytest.raises(ValueError, match="splits: 3; allowed: a divisor of the teacher's width 32"):
        MLKDConfig().objective(Encoder(tiny(hidden_size=24, num_attention_heads=3)), Encoder(tiny()))
    for config in (MLKDConfig(), MLKDTaskConfig()):
        with pytest.raises(ValueError, match="teacher_model: None"):
            config.objective(Encoder(tiny()), None)
