"""What the registry says that PyTorch does with the samples, held against PyTorch itself."""

import pytest

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="the samples are written in PyTorch")


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


# PyTorch warns that its fast path is off without batch_first: the samples' own choice.
@pytest.fixture
def encoder():
    """The samples' encoder, batch_first left at its default, at a small size."""
    with pytest.warns(UserWarning, match="batch_first"):
        return torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(d_model=16, nhead=2), num_layers=2)


def test_c002b_as_printed_fails(encoder):
    fc = torch.nn.Linear(64, 10)  # hidden_dim where the encoder's channels belong
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fc(encoder(torch.randn(4, 8, 16)))
    assert encoder.layers[0].linear1.out_features == 2048  # hidden_dim or not


def test_c004_as_printed_fails():
    with pytest.raises(RuntimeError, match="Expected target size"):
        torch.nn.CrossEntropyLoss()(torch.randn(2, 3, 100), torch.tensor([[1, 2, 3], [4, 5, 6]]))
    torch.nn.CrossEntropyLoss()(torch.randn(2, 3, 100).transpose(1, 2), torch.tensor([[1, 2, 3], [4, 5, 6]]))


def test_c004_as_printed_mixes_the_batch(encoder):
    x = torch.randn(2, 5, 16)
    other = x.clone()
    other[1] += torch.randn(5, 16)
    encoder.eval()
    with torch.no_grad():
        assert (encoder(x)[0] - encoder(other)[0]).abs().max() > 0.01
        later = x.clone()
        later[0, 4] += torch.randn(16)
        assert (encoder(x)[0, 0] - encoder(later)[0, 0]).abs().max() < 1e-6
        encoder.train()
        assert (encoder(x) - encoder(x)).abs().max() > 0.01  # dropout, left on


def test_c002c_text_dataset_is_gone():
    transformers = pytest.importorskip("transformers", reason="the sample uses transformers")
    if int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("transformers had TextDataset before version 5")
    assert not hasattr(transformers, "TextDataset")
