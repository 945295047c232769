"""What is shared by the tests of this folder."""

from mocked_clouds import cloud as cloud
from mocked_clouds import mock as mock
