"""What do model servers say of themselves? One pure parser per metrics protocol; engines.py knows which is whose."""
