"""edgefer data check: what it finds, and no false alarms."""

import json
import re
import tracemalloc

import cv2
import numpy as np
import pytest

from edgefer import drawn
from edgefer.card import InputSpec
from edgefer.errors import DataError
from edgefer.train.data.audit import audit
from edgefer.train.data.duplicates import clusters, fingerprint, near_duplicates
from edgefer.train.data.load import DataOptions, load_dataset


@pytest.fixture(scope="module")
def faces():
    images, labels = drawn.face_set(8, seed=5)
    return [cv2.resize(face, (64, 64)) for face in images], labels


@pytest.fixture
def folder(faces, tmp_path):
    images, labels = faces
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        name = ("Angry", "Sad", "happy")[label % 3]
        split = "valid" if number % 4 == 0 else "train"
        (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / split / name / f"{number:03}.png"), image)
    return tmp_path


def test_altered_copies_are_found_and_other_images_are_not(faces):
    images, _ = faces
    altered = [
        cv2.resize(images[0], (48, 48), interpolation=cv2.INTER_AREA),
        images[1][:, ::-1],
        np.clip(images[2] * 0.9 + 8, 0, 255).astype(np.uint8),
        cv2.imdecode(cv2.imencode(".jpg", images[3], [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR),
    ]
    count = len(images)
    hashes, thumbs = zip(*map(fingerprint, [*images, *altered]), strict=True)
    pairs = near_duplicates(np.stack(hashes), np.stack(thumbs))
    assert pairs == [(i, count + i) for i in range(4)]


def test_many_equal_or_similar_images_take_bounded_time_and_memory():
    """All pairs of 3,000 frames are 4.5 million, which take minutes: only those that connect them are listed."""
    frame = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    similar = [np.clip(frame, number % 17, 255 - number // 17).astype(np.uint8) for number in range(3000)]
    hashes, thumbs = (np.stack(part) for part in zip(*map(fingerprint, similar), strict=True))
    tracemalloc.start()
    pairs = near_duplicates(hashes, thumbs)
    assert (
        clusters(pairs) == [list(range(3000))] and len(pairs) < 2 * 3000 and tracemalloc.get_traced_memory()[1] < 150e6
    )
    tracemalloc.stop()
    equal = near_duplicates(np.repeat(hashes[:2], 1500, axis=0), np.repeat(thumbs[:2], 1500, axis=0))
    assert len(clusters(equal)) == 1 and len(equal) == 2999


def test_a_leak_in_a_large_set_is_found(folder):
    frame = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    for number in range(150):
        split = "valid" if number == 149 else "train"
        similar = np.clip(frame, number % 17, 255 - number // 17).astype(np.uint8)
        cv2.imwrite(str(folder / split / "happy" / f"film-{number:03}.png"), similar)
    by_name = {check.subject: check for check in audit(folder).checks}
    assert "not every pair is listed" in by_name["near-duplicates"].detail
    assert by_name["leaks between splits"].detail == "1 pair is in different splits"


def test_a_leak_between_images_that_equal_a_copy_left_out_is_found(faces, tmp_path):
    images, labels = faces
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / "train" / str(label)).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "train" / str(label) / f"{number:03}.png"), image)
    other = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), (9, 9), 0)
    for name in ("test/0/aug-1.png", "test/0/two.png", "valid/0/one.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), other)
    found = audit(tmp_path, DataOptions(group_by=r"(?P<copy>aug-)?([^/]+)$"))
    (leaks,) = [check for check in found.checks if check.subject == "leaks between splits"]
    assert leaks.examples == ("test/0/two.png (0) = valid/0/one.png (0)",)


def test_clusters_join_pairs():
    assert clusters([(0, 5), (5, 9), (2, 3)]) == [[0, 5, 9], [2, 3]]


def status(found):
    return {check.subject: check.status.value for check in found.checks}


def test_valid_folder_passes(folder):
    found = audit(folder)
    assert found.passed and found.labels == ("angry", "happy", "sad")
    assert sum(sum(counts.values()) for counts in found.counts.values()) == sum(found.sizes.values()) == 56
    assert status(found)["near-duplicates"] == status(found)["leaks between splits"] == "pass"
    assert status(found)["label order"] == "warn"  # Angry, Sad, happy in ASCII


def test_leaks_wrong_labels_and_broken_files_are_found(folder):
    happy, sad = sorted((folder / "train" / "happy").iterdir()), folder / "train" / "Sad"
    (folder / "valid" / "happy" / "leak.png").write_bytes(happy[0].read_bytes())
    (sad / "wrong.png").write_bytes(happy[1].read_bytes())
    (sad / "broken.jpg").write_bytes(b"no image")
    found = audit(folder)
    by_name = {check.subject: check for check in found.checks}
    assert not found.passed
    assert by_name["unreadable"].examples[0].startswith("train/Sad/broken.jpg is not an image of a type")
    assert "valid/happy/leak.png" in by_name["leaks between splits"].examples[0]
    assert "wrong.png (sad)" in by_name["labels of duplicates"].examples[0]


def test_duplicates_count_as_leaks_into_validation_unless_grouped(faces, tmp_path):
    for number, (image, label) in enumerate(zip(*faces, strict=True)):
        name = tmp_path / ("angry", "sad", "happy")[label % 3]
        name.mkdir(exist_ok=True)
        for copy in "ab":
            cv2.imwrite(str(name / f"{number:03}{copy}.png"), image)
    leaks = {check.subject: check for check in audit(tmp_path).checks}["leaks between splits"]
    assert leaks.status == "warn" and leaks.examples and "--group-by" in leaks.fix
    assert status(audit(tmp_path, DataOptions(group_by=r"(\d+)[ab]")))["leaks between splits"] == "pass"


def test_groups_in_two_splits_fail(folder):
    names = [file.name for file in folder.rglob("*.png")]
    assert len(names) == len(set(names))
    assert status(audit(folder, DataOptions(group_by=r"(\d+)\.png")))["groups"] == "pass"
    found = audit(folder, DataOptions(group_by=r"/([A-Za-z]+)/\d"))  # a group for each class, in both splits
    assert status(found)["groups"] == "fail" and not found.passed


def test_data_check_command_reports_leaks_and_label_order(edgefer, folder):
    happy = sorted((folder / "train" / "happy").iterdir())[0]
    (folder / "valid" / "happy" / "leak.png").write_bytes(happy.read_bytes())
    done = edgefer("data", "check", folder)
    assert re.search(r"leaks between splits *│ warn *│ 1 pair is in different splits", done.stdout)
    report = json.loads(edgefer("data", "check", folder, "--json", "--bundle", "fer-small").stdout)
    (order,) = [check for check in report["checks"] if check["subject"] == "label order"]
    assert order["status"] == "warn" and "recognizes disgust, fear, surprise, neutral" in order["detail"]
    assert report["images"]["train"]["happy"] and report["passed"]
    (folder / "train" / "Sad").rename(folder / "train" / "Sadd")
    (folder / "valid" / "Sad").rename(folder / "valid" / "Sadd")
    report = json.loads(edgefer("data", "check", folder, "--json", "--bundle", "fer-small", expect=1).stdout)
    (order,) = [check for check in report["checks"] if check["subject"] == "label order"]
    assert order["status"] == "fail" and "not sadd (for sad?)" in order["detail"]
    with pytest.raises(DataError, match="There is no data"):
        audit(folder / "nothing")


def test_data_that_training_refuses_fails_with_the_same_reason(tmp_path):
    """At least as strict as training: one image of a class cannot be in training and validation both."""
    for name, count in {"happy": 5, "sad": 1}.items():
        (tmp_path / name).mkdir()
        for number in range(count):
            noise = np.random.default_rng([count, number]).integers(0, 256, (48, 48), np.uint8)
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), noise)
    with pytest.raises(DataError) as refused:
        load_dataset(tmp_path, InputSpec(height=48, width=48))
    found = audit(tmp_path)
    check = next(check for check in found.checks if check.subject == "can be trained on")
    assert not found.passed and check.detail == str(refused.value) and "'sad'" in check.detail


def test_bad_images_are_a_warning_only_with_skip_bad(folder):
    (folder / "train" / "Sad" / "cut.png").write_bytes(next((folder / "train" / "Sad").iterdir()).read_bytes()[:200])
    assert status(audit(folder))["unreadable"] == "fail"
    assert status(audit(folder, DataOptions(skip_bad=True)))["unreadable"] == "warn"


def test_equal_class_sizes_are_reported_in_one_sentence(tmp_path):
    noise = np.random.default_rng(0)
    for label in ("happy", "sad"):
        (tmp_path / label).mkdir()
        for number in range(10):
            cv2.imwrite(str(tmp_path / label / f"{number}.png"), noise.integers(0, 256, (48, 48), dtype=np.uint8))
    (balance,) = [check for check in audit(tmp_path, DataOptions()).checks if check.subject == "balance"]
    assert balance.detail == "every class has 8 training images" and "--folds 5" in balance.fix


def test_near_identical_images_across_the_splits_of_a_csv_are_a_warning_without_advice_for_folders(faces, tmp_path):
    """Training goes on with them, as with FER2013, which has such pairs."""
    rows = ["emotion,pixels,Usage"]
    for image, label in zip(*faces, strict=True):
        gray = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (48, 48), interpolation=cv2.INTER_AREA)
        rows += [f"{label},{' '.join(map(str, gray.ravel()))},{usage}" for usage in ("Training", "PublicTest")]
    (tmp_path / "fer2013.csv").write_text("\n".join(rows))
    found = audit(tmp_path / "fer2013.csv")
    by_name = {check.subject: check for check in found.checks}
    leaks, count = by_name["leaks between splits"], len(faces[0])
    assert found.passed and leaks.status == "warn" and leaks.detail == f"{count} pairs are in different splits"
    assert "remove all but one" in leaks.fix and "--group-by" not in leaks.fix
    assert by_name["near-duplicates"].detail.startswith(
        f"{count} pairs: {count} images repeat another of the {2 * count}"
    )
