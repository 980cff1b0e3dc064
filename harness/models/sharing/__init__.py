"""Sharing architectures: how the tasks' networks share parameters. One short file each, one line here."""

SHARING: dict[str, str] = {
    "hard": "harness.models.sharing.hard:HardSharing",
    "single": "harness.models.sharing.single:SingleSharing",
    "soft": "harness.models.sharing.soft:SoftSharing",
    "asymmetric": "harness.models.sharing.asymmetric:AsymmetricSharing",
    "customized": "harness.models.sharing.customized:CustomizedSharing",
    "cross_stitch": "harness.models.sharing.cross_stitch:CrossStitchSharing",
    "sluice": "harness.models.sharing.sluice:SluiceSharing",
    "dynamic_routing": "harness.models.sharing.dynamic_routing:DynamicRoutingSharing",
    "mtan": "harness.models.sharing.mtan:MtanSharing",
    "moe": "harness.models.sharing.mmoe:MoeSharing",
    "mmoe": "harness.models.sharing.mmoe:MmoeSharing",
    "ml_mmoe": "harness.models.sharing.mmoe:MlMmoeSharing",
    "cgc": "harness.models.sharing.ple:CgcSharing",
    "ple": "harness.models.sharing.ple:PleSharing",
}
