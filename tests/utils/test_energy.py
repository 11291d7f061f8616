import pytest

from edgemin_hf.utils.energy import energy_between, package_energy


@pytest.fixture
def powercap(tmp_path):
    """Two packages, a part of one, and one that is told by another way again, as Linux shows them."""
    zones = ((":0", "package-0", 100), (":0:0", "core", 60), (":1", "package-1", 900), ("-mmio:0", "package-0", 99))
    for zone, name, value in zones:
        folder = tmp_path / f"intel-rapl{zone}"
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        (folder / "energy_uj").write_text(f"{value}\n")
        (folder / "max_energy_range_uj").write_text("999\n")
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path


def test_packages_are_summed_and_their_parts_are_not(powercap):
    before = package_energy(powercap)
    assert sorted(before.values()) == [100, 900]
    (powercap / "intel-rapl:0/energy_uj").write_text("150")
    (powercap / "intel-rapl:1/energy_uj").write_text("20")  # ran over: 900 to 999, then 0 to 20
    assert energy_between(before, package_energy(powercap)) == 50 + 120


def test_what_the_machine_does_not_tell_is_not_measured(powercap, tmp_path):
    assert package_energy(tmp_path / "none") is None
    (powercap / "intel-rapl:0/energy_uj").write_text("")
    assert package_energy(powercap) is None
