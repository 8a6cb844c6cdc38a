export const chatView = {
  mount() {},
};
