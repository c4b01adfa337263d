"""Honest classifiers with kinks have a certificate, and faults in them are found at every size."""

import pytest
import torch
from all_paths import X
from certificate_checks import values
from networks import FAULTS, SIZES, Behind, ResNet, Textbook, classifier, flat_images

from bench.evaluation.certificates.certificate import NoGradient
from bench.evaluation.certificates.measure import certify
from defenses.core.defense import UserModule


def plain(network):
    return UserModule(network.eval(), stochastic=False)


def textbook():
    torch.manual_seed(0)
    return plain(Textbook())


@pytest.mark.parametrize("part", range(10))
def test_the_textbook_network_passes_on_flat_backgrounds(part):
    certificate, checks = values(textbook(), flat_images(40)[4 * part : 4 * part + 4])
    assert certificate.passed, checks


@pytest.mark.parametrize("part", range(6))
def test_a_residual_network_passes_on_flat_backgrounds(part):
    torch.manual_seed(part)
    certificate, checks = values(plain(ResNet()), flat_images(24)[4 * part : 4 * part + 4])
    assert certificate.passed, checks


def test_the_textbook_network_passes_on_mnist(need_data):
    x = need_data("mnist").x
    for begin in range(0, 40, 4):
        certificate, checks = values(textbook(), x[begin : begin + 4])
        assert certificate.passed, checks


@pytest.mark.parametrize("size", SIZES)
def test_honest_classifiers_of_every_size_pass(size):
    certificate, checks = values(plain(classifier(size)))
    assert certificate.passed, checks


def test_a_function_that_ends_at_black_passes_on_flat_backgrounds():
    x = flat_images(4, side=28)
    network = Behind(lambda x: x.sqrt(), classifier("mlp", side=28))
    certificate, checks = values(plain(network), x)
    assert certificate.passed, checks


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_plain_classifiers_are_found_at_every_size(fault, size):
    certificate, checks = values(plain(Behind(FAULTS[fault], classifier(size))))
    assert certificate.state == "failed", checks


@pytest.mark.parametrize("size", SIZES)
def test_a_classifier_cut_off_from_its_image_has_no_gradient(size):
    with pytest.raises(NoGradient):
        certify(plain(Behind(lambda x: x.detach(), classifier(size))), X)
